//! Values as WAMP has them, for the few places that look into them.

use bytes::Bytes;
use bytestring::ByteString;

/// A decoded value.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Value {
    /// Nothing.
    #[default]
    Null,
    /// True or false; never an integer.
    Bool(bool),
    /// An integer from -2^63 to 2^64-1.
    Int(i128),
    /// A number with a fraction or an exponent.
    Float(f64),
    /// Unicode text.
    Text(ByteString),
    /// Octets.
    Bytes(Bytes),
    /// Values in order.
    List(Vec<Self>),
    /// Values by key in the order they came; of equal keys the last counts.
    Map(Dict),
}

impl Value {
    /// The text, if it is one.
    #[must_use]
    pub fn as_text(&self) -> Option<&ByteString> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    /// The integer, if it is one from 0 to 2^64-1.
    #[must_use]
    pub fn as_u64(&self) -> Option<u64> {
        if let Self::Int(number) = self { u64::try_from(*number).ok() } else { None }
    }

    /// The integer, if it is one from -2^63 to 2^63-1.
    #[must_use]
    pub fn as_i64(&self) -> Option<i64> {
        if let Self::Int(number) = self { i64::try_from(*number).ok() } else { None }
    }

    /// The boolean, if it is one.
    #[must_use]
    pub fn as_bool(&self) -> Option<bool> {
        if let Self::Bool(value) = self { Some(*value) } else { None }
    }

    /// The list, if it is one.
    #[must_use]
    pub fn as_list(&self) -> Option<&[Self]> {
        if let Self::List(values) = self { Some(values) } else { None }
    }

    /// The map, if it is one.
    #[must_use]
    pub fn as_dict(&self) -> Option<&Dict> {
        if let Self::Map(dict) = self { Some(dict) } else { None }
    }

    /// Whether there is nothing.
    #[must_use]
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}
impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Self::Int(value.into())
    }
}
impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Int(value.into())
    }
}
impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::Float(value)
    }
}
impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::Text(value.into())
    }
}
impl From<String> for Value {
    fn from(value: String) -> Self {
        Self::Text(value.into())
    }
}
impl From<ByteString> for Value {
    fn from(value: ByteString) -> Self {
        Self::Text(value)
    }
}
impl From<Bytes> for Value {
    fn from(value: Bytes) -> Self {
        Self::Bytes(value)
    }
}
impl From<Vec<Self>> for Value {
    fn from(value: Vec<Self>) -> Self {
        Self::List(value)
    }
}
impl From<Dict> for Value {
    fn from(value: Dict) -> Self {
        Self::Map(value)
    }
}

/// A map of text to values, in the order they came.
///
/// Made for the few keys that details have: a lookup looks at one key after the other. A map that was decoded may have a key
/// more than once; the last one counts, and all are written again.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Dict(Vec<(ByteString, Value)>);

impl Dict {
    /// An empty map; allocates nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// The value of a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.iter().rev().find(|(known, _)| known == key).map(|(_, value)| value)
    }

    /// The text of a key, if it has one.
    #[must_use]
    pub fn get_text(&self, key: &str) -> Option<&ByteString> {
        self.get(key).and_then(Value::as_text)
    }

    /// The integer of a key, if it has one from 0 to 2^64-1.
    #[must_use]
    pub fn get_u64(&self, key: &str) -> Option<u64> {
        self.get(key).and_then(Value::as_u64)
    }

    /// The boolean of a key, if it has one.
    #[must_use]
    pub fn get_bool(&self, key: &str) -> Option<bool> {
        self.get(key).and_then(Value::as_bool)
    }

    /// The list of a key, if it has one.
    #[must_use]
    pub fn get_list(&self, key: &str) -> Option<&[Value]> {
        self.get(key).and_then(Value::as_list)
    }

    /// The map of a key, if it has one.
    #[must_use]
    pub fn get_dict(&self, key: &str) -> Option<&Self> {
        self.get(key).and_then(Value::as_dict)
    }

    /// Sets the value of a key; the one it had comes back.
    pub fn insert(&mut self, key: impl Into<ByteString>, value: impl Into<Value>) -> Option<Value> {
        let (key, value) = (key.into(), value.into());
        match self.0.iter_mut().rev().find(|(known, _)| *known == key) {
            Some((_, slot)) => Some(std::mem::replace(slot, value)),
            None => {
                self.0.push((key, value));
                None
            }
        }
    }

    /// The same map with one more key.
    #[must_use]
    pub fn with(mut self, key: impl Into<ByteString>, value: impl Into<Value>) -> Self {
        self.insert(key, value);
        self
    }

    /// Adds a key without looking whether it is there: what decoders do, in time linear in the map.
    pub fn push(&mut self, key: ByteString, value: Value) {
        self.0.push((key, value));
    }

    /// Takes a key out, however often it is there; the value that counted comes back.
    pub fn remove(&mut self, key: &str) -> Option<Value> {
        let mut found = None;
        self.0.retain_mut(|(known, value)| {
            let hit = known == key;
            if hit {
                found = Some(std::mem::take(value));
            }
            !hit
        });
        found
    }

    /// All keys and values in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&ByteString, &Value)> {
        self.0.iter().map(|(key, value)| (key, value))
    }

    /// How many pairs there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<K: Into<ByteString>, V: Into<Value>> FromIterator<(K, V)> for Dict {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        let mut dict = Self::new();
        for (key, value) in pairs {
            dict.insert(key, value);
        }
        dict
    }
}

impl IntoIterator for Dict {
    type Item = (ByteString, Value);
    type IntoIter = std::vec::IntoIter<(ByteString, Value)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

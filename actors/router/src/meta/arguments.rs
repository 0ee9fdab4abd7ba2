//! Arguments of meta procedures.

use weald_wamp::{ByteString, Dict, Limits, Payload, SessionId, Value};

use crate::dealer::Refusal;
use crate::error;

/// What a meta procedure was called with.
#[derive(Debug, Clone, Default)]
pub(crate) struct Arguments {
    args: Vec<Value>,
    kwargs: Dict,
}

fn wrong(what: &str, expected: &str) -> Refusal {
    Refusal::new(error::INVALID_ARGUMENT, format!("{what} must be {expected}"))
}

impl Arguments {
    pub(crate) fn decode(payload: &Payload, limits: &Limits) -> Result<Self, Refusal> {
        let (args, kwargs) = payload
            .decode(limits)
            .map_err(|error| Refusal::new(error::INVALID_ARGUMENT, error.to_string()))?;
        Ok(Self { args, kwargs })
    }

    /// An argument by place, or else by name. Null counts as absent.
    pub(crate) fn get(&self, place: usize, name: &str) -> Option<&Value> {
        self.args.get(place).or_else(|| self.kwargs.get(name)).filter(|value| !value.is_null())
    }

    /// A text, if there.
    pub(crate) fn text(&self, place: usize, name: &str) -> Result<Option<ByteString>, Refusal> {
        let Some(value) = self.get(place, name) else { return Ok(None) };
        value.as_text().cloned().map(Some).ok_or_else(|| wrong(name, "a string"))
    }

    /// A text.
    pub(crate) fn need_text(&self, place: usize, name: &str) -> Result<ByteString, Refusal> {
        self.text(place, name)?.ok_or_else(|| wrong(name, "given, a string"))
    }

    /// An integer from 1 to 2^53, as ids are.
    pub(crate) fn need_id(&self, place: usize, name: &str) -> Result<u64, Refusal> {
        let id = self.get(place, name).and_then(Value::as_u64);
        id.filter(|id| SessionId::new(*id).is_some())
            .ok_or_else(|| wrong(name, "given, an id from 1 to 2^53"))
    }

    /// A whole number, if there.
    pub(crate) fn number(&self, place: usize, name: &str) -> Result<Option<u64>, Refusal> {
        let Some(value) = self.get(place, name) else { return Ok(None) };
        value.as_u64().map(Some).ok_or_else(|| wrong(name, "a whole number"))
    }

    /// A boolean; false when absent.
    pub(crate) fn flag(&self, place: usize, name: &str) -> Result<bool, Refusal> {
        let Some(value) = self.get(place, name) else { return Ok(false) };
        value.as_bool().ok_or_else(|| wrong(name, "a boolean"))
    }

    /// A list of texts, if there.
    pub(crate) fn texts(
        &self,
        place: usize,
        name: &str,
    ) -> Result<Option<Vec<ByteString>>, Refusal> {
        let Some(value) = self.get(place, name) else { return Ok(None) };
        let texts = value.as_list().and_then(|values| {
            values.iter().map(|value| value.as_text().cloned()).collect::<Option<Vec<_>>>()
        });
        texts.map(Some).ok_or_else(|| wrong(name, "a list of strings"))
    }

    /// A list, empty when absent.
    pub(crate) fn list(&self, place: usize, name: &str) -> Result<Vec<Value>, Refusal> {
        let Some(value) = self.get(place, name) else { return Ok(Vec::new()) };
        value.as_list().map(<[Value]>::to_vec).ok_or_else(|| wrong(name, "a list"))
    }

    /// A dictionary, empty when absent.
    pub(crate) fn dict(&self, place: usize, name: &str) -> Result<Dict, Refusal> {
        let Some(value) = self.get(place, name) else { return Ok(Dict::new()) };
        value.as_dict().cloned().ok_or_else(|| wrong(name, "a dictionary"))
    }
}

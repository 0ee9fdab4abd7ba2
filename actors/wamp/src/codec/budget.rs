//! What a message may still cost.

use crate::error::DecodeError;
use crate::limits::{DEPTH_CAP, Limits};

/// Values of one message that are turned into memory of their own; a payload passed on is not among them.
///
/// A value takes some ten times the memory of its shortest encoding, and HELLO comes before anybody is known.
const VALUES_MAX: usize = 1 << 16; // guess: certificates and exclusion lists have far fewer

/// Limits and what of them is used up.
#[derive(Debug)]
pub(crate) struct Budget {
    depth: usize,
    depth_max: usize,
    elements: usize,
    elements_max: usize,
    values: usize,
    values_max: usize,
}

impl Budget {
    /// Checks the size, and starts with the rest unused.
    pub(crate) fn new(bytes: usize, limits: &Limits) -> Result<Self, DecodeError> {
        if bytes > limits.message_bytes {
            return Err(DecodeError::TooLarge { bytes, max: limits.message_bytes });
        }
        Ok(Self {
            depth: 0,
            depth_max: limits.depth.min(DEPTH_CAP),
            elements: 0,
            elements_max: limits.elements,
            values: 0,
            values_max: VALUES_MAX,
        })
    }

    /// Lets as many values be turned into memory as there may be elements: for those who asked for them.
    pub(crate) fn allow_values(&mut self) {
        self.values_max = self.elements_max;
    }

    /// Enters a container that claims so many elements, while `rest` octets follow; the claim comes back.
    pub(crate) fn enter_counted(
        &mut self,
        at: usize,
        elements: u64,
        rest: usize,
    ) -> Result<usize, DecodeError> {
        self.enter(at)?;
        // Every element takes an octet at least: whoever claims more than that is not believed.
        match usize::try_from(elements) {
            Ok(elements) if elements <= rest => {
                self.spend(at, elements)?;
                Ok(elements)
            }
            _ => Err(DecodeError::Truncated { at }),
        }
    }

    /// Enters a container.
    pub(crate) fn enter(&mut self, at: usize) -> Result<(), DecodeError> {
        if self.depth >= self.depth_max {
            return Err(DecodeError::TooDeep { at, max: self.depth_max });
        }
        self.depth += 1;
        Ok(())
    }

    /// Leaves a container.
    pub(crate) fn leave(&mut self) {
        self.depth = self.depth.saturating_sub(1);
    }

    /// Counts elements.
    pub(crate) fn spend(&mut self, at: usize, elements: usize) -> Result<(), DecodeError> {
        self.elements = self.elements.saturating_add(elements);
        if self.elements > self.elements_max {
            return Err(DecodeError::TooManyElements { at, max: self.elements_max });
        }
        Ok(())
    }

    /// Counts a value that is turned into memory.
    pub(crate) fn spend_value(&mut self, at: usize) -> Result<(), DecodeError> {
        self.values += 1;
        if self.values > self.values_max {
            return Err(DecodeError::TooManyElements { at, max: self.values_max });
        }
        Ok(())
    }
}

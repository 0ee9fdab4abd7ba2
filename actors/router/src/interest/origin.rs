//! What is known of the rows of one other node.

use weald_peers::Tree;

use super::ledger::Ledger;

/// A question that has not been answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) at_ms: u64,
    /// The node itself may be asked although another is.
    pub(super) whom: weald_storage::NodeId,
}

/// All rows from the beginning, as far as they have come.
#[derive(Debug)]
pub(super) struct Gathering {
    pub(super) ledger: Ledger,
    /// The version that the node's ledger had when the first of them were sent.
    pub(super) begun: u64,
}

/// The rows of one other node, and how they stand.
#[derive(Debug)]
pub(super) struct Origin {
    /// The rows in use.
    pub(super) ledger: Ledger,
    /// Whether the ledger is that of its version. If not it is replaced as a whole, and used until then.
    pub(super) is_trusted: bool,
    /// Whether it is also all that its sender had, and adds up. Between two parts of something longer it is neither what the
    /// node has had at any time, nor the same everywhere.
    pub(super) is_settled: bool,
    /// What is to replace the ledger.
    pub(super) gathering: Option<Gathering>,
    pub(super) asked: Option<Asked>,
    /// The newest version that was heard of.
    pub(super) heard: u64,
    /// Whether the node answers.
    pub(super) is_reached: bool,
    /// Since when it does not.
    pub(super) away_ms: u64,
    /// Whether all its rows have come since it answers again.
    pub(super) is_synced: bool,
    /// Whether they ever have.
    pub(super) was_synced: bool,
    /// What was said last of whether its rows may be used.
    pub(super) said: Option<bool>,
    /// Along which connections its news go.
    pub(super) tree: Tree,
    /// Whether there are news since neighbours were last told what is known here.
    pub(super) has_news: bool,
    /// Until when nothing is taken from it.
    pub(super) refused_until_ms: u64,
}

impl Origin {
    pub(super) fn new(now_ms: u64) -> Self {
        Self {
            ledger: Ledger::new(0),
            is_trusted: false,
            is_settled: false,
            gathering: None,
            asked: None,
            heard: 0,
            is_reached: false,
            away_ms: now_ms,
            is_synced: false,
            was_synced: false,
            said: None,
            tree: Tree::default(),
            has_news: false,
            refused_until_ms: 0,
        }
    }

    /// Begins anew with a life of the node.
    pub(super) fn reborn(&mut self, incarnation: u64) {
        self.ledger = Ledger::new(incarnation);
        self.distrust();
        self.is_synced = false;
    }

    /// All rows are to be fetched anew; those that are here are used until then.
    pub(super) fn distrust(&mut self) {
        self.is_trusted = false;
        self.is_settled = false;
        self.gathering = None;
        self.asked = None;
        self.heard = 0;
    }

    /// Whether its rows may be used.
    pub(super) fn is_usable(&self) -> bool {
        self.is_reached && self.is_synced
    }

    /// What to ask for: in which life, from which version on, and when that was begun.
    pub(super) fn needs(&self) -> (u64, u64, u64) {
        let (from, begun) = match &self.gathering {
            Some(gathering) => (gathering.ledger.version(), gathering.begun),
            None if self.is_trusted => (self.ledger.version(), 0),
            None => (0, 0),
        };
        (self.ledger.incarnation(), from, begun)
    }
}

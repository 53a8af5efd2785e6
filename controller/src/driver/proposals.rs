//! Proposals on their way through raft: which token waits at which place of the log.

use std::collections::BTreeMap;

use bellows_core::ids::Token;
use bellows_member::{Committed, Proposed};

/// What waits.
#[derive(Default)]
pub(super) struct Proposals {
    waiting: BTreeMap<u64, (u64, Token)>,
}

/// Whose a committed command is.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Claim {
    /// The token of the proposal that it is.
    pub(super) own: Option<Token>,
    /// The token of a proposal that had this place and lost it.
    pub(super) lost: Option<Token>,
}

impl Proposals {
    pub(super) fn wait(&mut self, place: Proposed, token: Token) {
        self.waiting.insert(place.index, (place.term, token));
    }

    /// The command at a place is committed: whose is it?
    pub(super) fn claim(&mut self, committed: &Committed) -> Claim {
        match self.waiting.remove(&committed.index) {
            Some((term, token)) if term == committed.term => Claim { own: Some(token), lost: None },
            Some((_, token)) => Claim { own: None, lost: Some(token) },
            None => Claim { own: None, lost: None },
        }
    }

    /// Leadership ended: none of them can be promised any more.
    pub(super) fn give_up(&mut self) -> Vec<Token> {
        std::mem::take(&mut self.waiting).into_values().map(|(_, token)| token).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn committed(index: u64, term: u64) -> Committed {
        Committed { index, term, command: Vec::new() }
    }

    #[test]
    fn only_the_same_place_and_term_is_ones_own() {
        let mut proposals = Proposals::default();
        for (index, token) in [(5, 50), (6, 60), (7, 70)] {
            proposals.wait(Proposed { index, term: 2 }, Token(token));
        }
        assert_eq!(proposals.claim(&committed(5, 2)), Claim { own: Some(Token(50)), lost: None });
        assert_eq!(proposals.claim(&committed(5, 2)), Claim { own: None, lost: None });
        assert_eq!(proposals.claim(&committed(6, 3)), Claim { own: None, lost: Some(Token(60)) });
        assert_eq!(proposals.give_up(), vec![Token(70)]);
        assert_eq!(proposals.len(), 0);
    }
}

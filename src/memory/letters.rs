//! The messages that were given up, oldest first.

use std::collections::VecDeque;

use super::Letter;

/// At most as many messages as the caller allows.
#[derive(Debug, Default)]
pub struct Letters {
    kept: VecDeque<Letter>,
    last_id: u64,
}

impl Letters {
    /// Keeps a message with an id of its own; the oldest go where there are more than `most`.
    pub fn keep(&mut self, letter: Letter, most: u64) -> &Letter {
        self.last_id += 1;
        self.kept.push_back(Letter {
            id: self.last_id,
            ..letter
        });
        while self.kept.len() as u64 > most.max(1) {
            self.kept.pop_front();
        }
        // It is never empty here.
        &self.kept[self.kept.len() - 1]
    }

    /// Puts back a message. A snapshot and its journal may both hold it.
    pub fn restore(&mut self, letter: Letter) {
        self.last_id = self.last_id.max(letter.id);
        if !self.kept.iter().any(|it| it.id == letter.id) {
            self.kept.push_back(letter);
        }
    }

    pub fn delete(&mut self, id: u64) -> bool {
        let before = self.kept.len();
        self.kept.retain(|letter| letter.id != id);
        before != self.kept.len()
    }

    pub fn all(&self) -> impl Iterator<Item = &Letter> {
        self.kept.iter()
    }
}

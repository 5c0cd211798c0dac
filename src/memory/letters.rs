//! The messages that were given up, oldest first.

use std::collections::VecDeque;

use super::Letter;

/// At most as many messages as the caller allows, and at most [`MAX_BYTES`].
#[derive(Debug, Default)]
pub struct Letters {
    kept: VecDeque<Letter>,
    bytes: usize,
    last_id: u64,
}

/// Bytes of all bodies, unless one is larger.
const MAX_BYTES: usize = 16 << 20;

impl Letters {
    /// Keeps a message under a new id. Removes the oldest messages beyond `most` or beyond the bytes.
    pub fn keep(&mut self, letter: Letter, most: u64) -> Letter {
        let letter = Letter {
            id: self.last_id + 1,
            ..letter
        };
        self.restore(letter.clone());
        while self.kept.len() as u64 > most.max(1) {
            self.drop_oldest();
        }
        letter
    }

    /// Restores a message. A snapshot and its journal may both hold it.
    pub fn restore(&mut self, letter: Letter) {
        self.last_id = self.last_id.max(letter.id);
        if self.kept.iter().any(|it| it.id == letter.id) {
            return;
        }
        self.bytes += letter.body.len();
        self.kept.push_back(letter);
        while self.bytes > MAX_BYTES && self.kept.len() > 1 {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some(oldest) = self.kept.pop_front() {
            self.bytes -= oldest.body.len();
        }
    }

    /// Deletes a message; returns whether it was there.
    pub fn delete(&mut self, id: u64) -> bool {
        let before = self.kept.len();
        self.kept.retain(|letter| letter.id != id);
        self.bytes = self.kept.iter().map(|letter| letter.body.len()).sum();
        before != self.kept.len()
    }

    pub fn all(&self) -> impl Iterator<Item = &Letter> {
        self.kept.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(bytes: usize) -> Letter {
        Letter {
            id: 0,
            message_id: "m".into(),
            reason: "unreadable".into(),
            kind: "other".into(),
            receive_count: 5,
            sent_at: None,
            kept_at: 1,
            body: "x".repeat(bytes),
            type_attribute: None,
        }
    }

    fn ids(letters: &Letters) -> Vec<u64> {
        letters.all().map(|letter| letter.id).collect()
    }

    #[test]
    fn the_oldest_make_room_by_number_and_by_bytes() {
        let mut letters = Letters::default();
        for _ in 0..5 {
            letters.keep(letter(1), 3);
        }
        assert_eq!(ids(&letters), [3, 4, 5]);
        letters.keep(letter(MAX_BYTES - 1), 3);
        assert_eq!(ids(&letters), [5, 6]);
        letters.keep(letter(2), 3);
        assert_eq!(ids(&letters), [7]);
        // A deleted message does not return under its id.
        assert!(letters.delete(7) && !letters.delete(7));
        assert_eq!(letters.keep(letter(1), 3).id, 8);
    }
}

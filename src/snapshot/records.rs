//! Records in a row, each after its length.

/// No record is larger: an SQS message has 1 MiB at most.
pub const MAX_RECORD_BYTES: usize = 32 << 20;

/// Appends a record; `false` if it is too large.
#[must_use]
pub fn push(buffer: &mut Vec<u8>, record: &[u8]) -> bool {
    let Ok(length) = u32::try_from(record.len()) else {
        return false;
    };
    if record.len() > MAX_RECORD_BYTES {
        return false;
    }
    buffer.extend_from_slice(&length.to_le_bytes());
    buffer.extend_from_slice(record);
    true
}

/// Splits a row into its records. `None` in place of a record: the row is cut or a length is wrong.
pub struct Records<'a>(pub &'a [u8]);

impl<'a> Iterator for Records<'a> {
    type Item = Option<&'a [u8]>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let record = self.0.split_first_chunk().and_then(|(length, rest)| {
            rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)
        });
        self.0 = record.map_or(&[], |(_, rest)| rest);
        Some(record.map(|(record, _)| record))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_split_as_they_were_made_and_a_cut_is_told() {
        let mut row = Vec::new();
        for record in [&b"one"[..], b"", b"three"] {
            assert!(push(&mut row, record));
        }
        let all: Vec<_> = Records(&row).map(Option::unwrap).collect();
        assert_eq!(all, [&b"one"[..], b"", b"three"]);
        for cut in 0..row.len() {
            let whole = Records(&row[..cut]).all(|record| record.is_some());
            assert_eq!(whole, [0, 7, 11].contains(&cut), "{cut}");
        }
        assert!(!push(&mut row, &vec![0; MAX_RECORD_BYTES + 1]));
    }
}

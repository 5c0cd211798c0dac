use std::io::Write;

use flate2::Compression;
use flate2::write::DeflateEncoder;

use super::*;

fn pack(size: u32, raw: &[u8]) -> Vec<u8> {
    let mut plain = size.to_le_bytes().to_vec();
    let mut encoder = DeflateEncoder::new(&mut plain, Compression::fast());
    encoder.write_all(raw).unwrap();
    encoder.finish().unwrap();
    plain
}

/// Someone with the key could write chunks like these; so could a fault of memory before sealing.
#[test]
fn a_chunk_is_unpacked_to_the_size_that_it_states_or_not_at_all() {
    let raw = b"records and records and records".repeat(100);
    let size = u32::try_from(raw.len()).unwrap();
    let mut out = Vec::new();
    assert!(unpack(&pack(size, &raw), &mut out).is_some() && out == raw);
    for wrong in [0, 1, size - 1, size + 1, u32::MAX] {
        let mut out = Vec::new();
        assert!(unpack(&pack(wrong, &raw), &mut out).is_none(), "{wrong}");
        assert!(
            out.capacity() <= 2 * raw.len() + 64,
            "{wrong}: {}",
            out.capacity()
        );
    }
    let bomb = pack(4, &vec![0; 8 << 20]);
    let mut out = Vec::new();
    assert!(unpack(&bomb, &mut out).is_none() && out.capacity() < 1 << 20);
}

#[test]
fn no_bytes_panic_or_take_more_memory_than_a_chunk_may() {
    let mut random = fastrand::Rng::with_seed(20_261_126);
    let good = pack(3_100, &b"records and records and records".repeat(100));
    let mut out = Vec::new();
    for _ in 0..20_000 {
        let mut bytes = good.clone();
        for _ in 0..random.usize(1..5) {
            let at = random.usize(..bytes.len());
            bytes[at] = random.u8(..);
        }
        bytes.truncate(random.usize(..=bytes.len()));
        let _ = unpack(&bytes, &mut out);
        let _ = Trailer::read(&bytes);
        let _ = frame(&bytes);
    }
    assert!(out.capacity() <= MAX_RECORD_BYTES, "{}", out.capacity());
}

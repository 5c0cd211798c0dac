use super::*;

fn header() -> Header {
    Header {
        part: Part::Journal {
            previous: 6,
            frames: 70,
        },
        number: 7,
        created_ms: 1_764_000_000_000,
        derivation: Derivation::Pbkdf2 {
            rounds: 600_000,
            salt: [3; SALT_BYTES],
        },
        key_id: [1; 8],
        file_salt: [2; 32],
        prefix: "production".into(),
        program: "0.1.0".into(),
    }
}

fn read(bytes: &[u8]) -> Result<Header, Unusable> {
    Header::read(&mut &*bytes).map(|(header, _)| header)
}

#[test]
fn a_header_is_read_as_it_was_written() {
    for part in [header().part, Part::Snapshot { covers: MAX_NUMBER }] {
        for derivation in [header().derivation, Derivation::None] {
            let header = Header {
                part,
                derivation,
                ..header()
            };
            assert_eq!(read(&header.encode().unwrap()).unwrap(), header);
        }
    }
    let long = Header {
        prefix: "x".repeat(MAX_PREFIX_BYTES + 1),
        ..header()
    };
    assert_eq!(long.encode(), None);
}

#[test]
fn a_header_that_is_cut_or_flipped_anywhere_is_told_from_that_of_another_key_or_version() {
    let bytes = header().encode().unwrap();
    for cut in 0..bytes.len() {
        let error = read(&bytes[..cut]).unwrap_err();
        match cut {
            0 => assert!(matches!(error, Unusable::Empty), "{error:?}"),
            _ => assert!(matches!(error, Unusable::Cut), "{cut}: {error:?}"),
        }
    }
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1 << bit;
            match read(&bytes).unwrap_err() {
                Unusable::Foreign => assert!(at < 8, "{at}"),
                // A length that grew.
                Unusable::Cut => assert!((12..16).contains(&at), "{at}"),
                Unusable::Damaged => assert!(at >= 8, "{at}"),
                error => panic!("{at}: {error:?}"),
            }
        }
    }
}

#[test]
fn newer_versions_foreign_and_empty_files_are_named() {
    let mut newer = header().encode().unwrap();
    newer[10] = 2;
    let end = newer.len() - CHECKSUM_BYTES;
    let sum = checksum(&newer[..end]);
    newer[end..].copy_from_slice(&sum);
    assert!(matches!(read(&newer), Err(Unusable::Newer(2))));
    for foreign in [
        &b"DMP1"[..],
        b"x",
        b"{\"version\":1}\n\n\n\n",
        b"ENTSYNCX........",
    ] {
        assert!(
            matches!(read(foreign), Err(Unusable::Foreign)),
            "{foreign:?}"
        );
    }
    for empty in [&b""[..], &[0; 3], &[0; 5_000]] {
        assert!(matches!(read(empty), Err(Unusable::Empty)));
    }
}

#[test]
fn numbers_that_could_not_be_followed_by_another_are_refused() {
    for header in [
        Header {
            number: MAX_NUMBER + 1,
            ..header()
        },
        Header {
            part: Part::Snapshot { covers: u64::MAX },
            ..header()
        },
    ] {
        let read = read(&header.encode().unwrap());
        assert!(matches!(read, Err(Unusable::Damaged)));
    }
}

#[test]
fn rounds_that_would_weaken_the_key_or_stop_the_reader_are_refused() {
    for rounds in [1, 599_999, 10_000_001, u32::MAX] {
        let header = Header {
            derivation: Derivation::Pbkdf2 {
                rounds,
                salt: [3; SALT_BYTES],
            },
            ..header()
        };
        let read = read(&header.encode().unwrap());
        assert!(matches!(read, Err(Unusable::Damaged)), "{rounds}");
    }
}

use super::*;

fn secret(text: &str) -> Secret {
    Secret::parse(text).unwrap()
}

#[test]
fn happy() {
    let folder = tempfile::tempdir().unwrap();
    let open = || {
        Folder::open(
            folder.path(),
            "p",
            secret("correct horse battery staple"),
            None,
            3,
        )
        .unwrap()
    };
    let one = open();
    let restored = one.restore(|_| panic!()).unwrap();
    assert!(restored.is_whole && restored.snapshot.is_none());
    one.journal().append(b"a").unwrap();
    one.journal().append(b"b").unwrap();
    one.journal().sync().unwrap();
    let covers = one.rotate();
    one.journal().append(b"c").unwrap();
    one.journal().sync().unwrap();
    let mut writer = one.snapshot(covers).unwrap();
    writer.put(b"a").unwrap();
    writer.put(b"b").unwrap();
    println!("{:?}", writer.finish().unwrap());
    drop(one);
    let two = open();
    let mut got = Vec::new();
    let restored = two
        .restore(|record| {
            got.push(record.to_vec());
            Ok(())
        })
        .unwrap();
    println!("{restored:?}");
    assert_eq!(got, [b"a", b"b", b"c"]);
}

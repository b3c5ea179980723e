// SPDX-License-Identifier: MIT OR Apache-2.0
//! Replays the fuzz corpus of headers, inner packets, and what the kernel and peers give to be cut and merged.
#![expect(unreachable_pub, reason = "check.rs is shared with the fuzz targets")]

mod check;

use std::{fs, path::Path};

#[test]
fn the_corpus_is_harmless() {
    for (target, check) in check::TARGETS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
        let mut files = 0;
        for file in fs::read_dir(folder).expect("every target has a corpus") {
            let data = fs::read(file.unwrap().path()).unwrap();
            (0..=data.len()).for_each(|len| check(&data[..len]));
            files += 1;
        }
        assert!(files > 0, "{target}");
        check::run(target, &[]);
    }
}

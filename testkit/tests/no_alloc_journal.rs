//! A device's journal in files allocates nothing per record: it is written by the task that serves the sockets.

use push::file_journal::FileJournal;
use push::receiver::journal::{Found, Journal};
use testkit::alloc::{Counting, Counts, count};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn appending_and_syncing_allocate_nothing() {
    let path = std::env::temp_dir().join(format!("tillwire-no-alloc-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&path);
    let mut journal = FileJournal::open(&path).unwrap();
    assert_eq!(journal.replay(&mut |_| {}).unwrap(), Found::New);
    // The first record makes the files.
    journal.append(b"first").unwrap();
    journal.sync().unwrap();
    let counts = count(|| {
        for n in 0..200_u32 {
            for _ in 0..16 {
                journal.append(&n.to_le_bytes()).unwrap();
            }
            journal.sync().unwrap();
        }
    });
    assert_eq!(counts, Counts::default());
    drop(journal);
    std::fs::remove_dir_all(path).unwrap();
}

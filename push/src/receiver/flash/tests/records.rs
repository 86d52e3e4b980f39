//! Records for a journal, which does not look at what they say. The tests of journals in files use them as well.

/// Record number `n`: 4 to 64 bytes that say which it is.
pub(crate) fn record(n: u32) -> Vec<u8> {
    let mut record = n.to_le_bytes().to_vec();
    record.resize(4 + (n as usize * 7) % 61, n.to_le_bytes()[0]);
    record
}

/// The records of these numbers.
pub(crate) fn records(numbers: impl IntoIterator<Item = u32>) -> Vec<Vec<u8>> {
    numbers.into_iter().map(record).collect()
}

/// What a receiver that holds these records gives for a snapshot: one after the other, each with its length.
pub(crate) fn snapshot<const MAX: usize>(
    records: &[Vec<u8>],
) -> impl FnMut(&mut [u8; MAX]) -> Option<usize> + '_ {
    let mut records = records.iter();
    move |into| {
        let record = records.next()?;
        into[..record.len()].copy_from_slice(record);
        Some(record.len())
    }
}

use super::*;

/// The same groups as the version before wrote them, and the mark behind the last.
pub(in crate::store) fn in_small_blocks(mut groups: &[u8], id: &JournalId) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut last = 0;
    while let Some(header) = groups.first_chunk().and_then(|first| Header::decode(first, id)) {
        let (group, rest) = groups.split_at(header.padded() as usize);
        let payload = &group[HEADER..HEADER + header.len as usize];
        last = header.sequence;
        bytes.extend(Header { align: HEADER, ..header }.encode(id));
        bytes.extend(payload);
        bytes.resize(bytes.len().next_multiple_of(HEADER), 0);
        groups = rest;
    }
    bytes.extend(Header { sequence: last, len: MARK, checksum: [0; 32], align: HEADER }.encode(id));
    bytes
}

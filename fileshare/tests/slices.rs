//! Slices: what is encoded verifies, and nothing else does.

use bao_tree::{
    ChunkNum, ChunkRanges,
    io::{outboard::PreOrderMemOutboard, sync::encode_ranges},
};
use bytes::Bytes;
use por_fileshare::{
    slice::{self, MAX_WINDOW, SliceError, Window, WindowError},
    tree::{BLOCK, GROUP},
};
use proptest::prelude::*;

fn content(size: u64, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; size as usize];
    let mut reader = blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof();
    reader.fill(&mut bytes);
    bytes
}

struct Sample {
    data: Vec<u8>,
    outboard: PreOrderMemOutboard,
}

impl Sample {
    fn new(size: u64) -> Self {
        let data = content(size, size);
        let outboard = PreOrderMemOutboard::create(&data, BLOCK);
        Sample { data, outboard }
    }

    fn size(&self) -> u64 {
        self.data.len() as u64
    }

    fn encode(&self, window: Window) -> Vec<u8> {
        slice::encode(&self.data[..], &self.outboard, window).unwrap()
    }

    fn decode(&self, window: Window, encoded: Vec<u8>) -> Result<slice::Verified, SliceError> {
        slice::decode(self.outboard.root, self.size(), window, &Bytes::from(encoded))
    }
}

fn joined(verified: &slice::Verified) -> Vec<u8> {
    verified.bytes_within(0, u64::MAX).concat()
}

/// A size around what matters, and a window in it.
fn size_and_window() -> impl Strategy<Value = (u64, Window)> {
    let size = prop_oneof![
        Just(0),
        Just(1),
        Just(GROUP),
        Just(GROUP + 1),
        1..40 * GROUP,
        (1..40u64).prop_map(|groups| groups * GROUP),
    ];
    (size, any::<u64>(), any::<u64>()).prop_map(|(size, a, b)| {
        let groups = size.div_ceil(GROUP).max(1);
        let first = a % groups;
        let last = first + b % (groups - first);
        let offset = first * GROUP;
        let end = ((last + 1) * GROUP).min(size);
        (size, Window::new(offset, end - offset, size).unwrap())
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_encoded_is_decoded((size, window) in size_and_window()) {
        let sample = Sample::new(size);
        let encoded = sample.encode(window);
        prop_assert_eq!(encoded.len() as u64, slice::encoded_len(size, window));
        let verified = sample.decode(window, encoded).unwrap();
        let range = window.offset() as usize..window.end() as usize;
        prop_assert_eq!(joined(&verified), &sample.data[range]);
    }

    #[test]
    fn a_slice_is_what_bao_tree_writes((size, window) in size_and_window()) {
        let sample = Sample::new(size);
        let ranges = if size == 0 {
            ChunkRanges::all()
        } else {
            ChunkRanges::from(ChunkNum::full_chunks(window.offset())..ChunkNum::chunks(window.end()))
        };
        let mut expected = Vec::new();
        encode_ranges(&sample.data[..], &sample.outboard, &ranges, &mut expected).unwrap();
        prop_assert_eq!(sample.encode(window), expected);
    }

    #[test]
    fn every_flipped_bit_is_found((size, window) in size_and_window(), at: prop::sample::Index, bit in 0u8..8) {
        let sample = Sample::new(size);
        let mut encoded = sample.encode(window);
        if !encoded.is_empty() {
            let at = at.index(encoded.len());
            encoded[at] ^= 1 << bit;
            let error = sample.decode(window, encoded).unwrap_err();
            let is_mismatch = matches!(error, SliceError::Mismatch { .. });
            prop_assert!(is_mismatch, "{error}");
        }
    }

    #[test]
    fn every_other_length_is_found((size, window) in size_and_window(), cut: prop::sample::Index) {
        let sample = Sample::new(size);
        let encoded = sample.encode(window);
        let mut longer = encoded.clone();
        longer.push(0);
        let too_long = matches!(sample.decode(window, longer), Err(SliceError::Length { .. }));
        prop_assert!(too_long);
        if !encoded.is_empty() {
            let cut = encoded[..cut.index(encoded.len())].to_vec();
            let too_short = matches!(sample.decode(window, cut), Err(SliceError::Length { .. }));
            prop_assert!(too_short);
        }
    }

    #[test]
    fn a_slice_of_another_window_is_found((size, window) in size_and_window()) {
        let sample = Sample::new(size);
        let encoded = sample.encode(window);
        for offset in (0..size).step_by(GROUP as usize) {
            let other = Window::new(offset, window.len().min(size - offset), size);
            if let Ok(other) = other && other != window {
                prop_assert!(sample.decode(other, encoded.clone()).is_err());
            }
        }
    }

    #[test]
    fn a_size_proof_proves_exactly_one_size(
        size in prop_oneof![0..5000u64, 0..40 * GROUP],
        other in prop_oneof![0..5000u64, 0..40 * GROUP, any::<u64>()],
    ) {
        let sample = Sample::new(size);
        let proof = slice::encode_size_proof(&sample.data[..], &sample.outboard).unwrap();
        prop_assert!(proof.len() <= slice::MAX_SIZE_PROOF);
        slice::verify_size_proof(sample.outboard.root, size, &proof).unwrap();
        for lie in [other, size + 1, size.wrapping_sub(1), size + GROUP, size * 2 + 1] {
            if lie != size {
                prop_assert!(slice::verify_size_proof(sample.outboard.root, lie, &proof).is_err());
            }
        }
    }

    #[test]
    fn garbage_is_no_size_proof(root: [u8; 32], size: u64, proof: Vec<u8>) {
        let root = blake3::Hash::from_bytes(root);
        prop_assert!(slice::verify_size_proof(root, size, &proof).is_err());
    }

    #[test]
    fn content_that_changed_is_never_encoded((size, window) in size_and_window(), at: prop::sample::Index) {
        let mut sample = Sample::new(size);
        if size > 0 {
            let at = window.offset() as usize + at.index(window.len() as usize);
            sample.data[at] ^= 0x10;
            let result = slice::encode(&sample.data[..], &sample.outboard, window);
            let changed = matches!(result, Err(SliceError::ContentChanged { .. }));
            prop_assert!(changed);
        }
    }
}

#[test]
fn every_bit_of_a_small_slice_counts() {
    let sample = Sample::new(2 * GROUP + 100);
    let window = Window::new(2 * GROUP, 100, sample.size()).unwrap();
    let encoded = sample.encode(window);
    for at in 0..encoded.len() * 8 {
        let mut wrong = encoded.clone();
        wrong[at / 8] ^= 1 << (at % 8);
        assert!(sample.decode(window, wrong).is_err(), "bit {at}");
    }
    for len in 0..encoded.len() {
        assert!(sample.decode(window, encoded[..len].to_vec()).is_err());
    }
}

#[test]
fn content_cut_short_is_never_encoded() {
    let mut sample = Sample::new(5 * GROUP);
    let window = Window::new(4 * GROUP, GROUP, sample.size()).unwrap();
    sample.data.truncate(4 * GROUP as usize + 7);
    let result = slice::encode(&sample.data[..], &sample.outboard, window);
    assert!(matches!(result, Err(SliceError::ContentChanged { .. })));
}

#[test]
fn a_rotten_hash_tree_is_never_used() {
    let mut sample = Sample::new(5 * GROUP);
    let window = Window::new(0, 5 * GROUP, sample.size()).unwrap();
    sample.outboard.data[70] ^= 1;
    let result = slice::encode(&sample.data[..], &sample.outboard, window);
    assert!(matches!(result, Err(SliceError::OutboardCorrupt)));
}

#[test]
fn windows_are_bounded_and_aligned() {
    let size = 100 * 1024 * 1024 + 5;
    assert!(Window::new(0, MAX_WINDOW, size).is_ok());
    assert!(Window::new(100 * 1024 * 1024, 5, size).is_ok());
    let too_long = Window::new(0, MAX_WINDOW + GROUP, size);
    assert_eq!(too_long, Err(WindowError::TooLong(MAX_WINDOW + GROUP)));
    assert_eq!(Window::new(0, 5, size), Err(WindowError::Unaligned(0, 5)));
    assert_eq!(Window::new(1, GROUP - 1, size), Err(WindowError::Unaligned(1, GROUP)));
    assert_eq!(Window::new(GROUP, 0, size), Err(WindowError::Empty));
    assert!(matches!(Window::new(0, GROUP, 5), Err(WindowError::Outside { .. })));
    assert!(matches!(Window::new(u64::MAX, 2, size), Err(WindowError::Outside { .. })));
    assert!(matches!(Window::new(0, 0, u64::MAX), Err(WindowError::Outside { .. })));
    assert!(Window::new(0, 0, 0).is_ok());
}

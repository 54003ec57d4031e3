//! Content ids: the BLAKE3 hash of a file or directory, written as a CIDv1.

use std::{fmt, str::FromStr};

use cid::Cid;
use multihash::Multihash;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Multicodec of plain bytes.
pub const CODEC_RAW: u64 = 0x55;
/// Multicodec of DAG-CBOR, used for directories.
pub const CODEC_DAG_CBOR: u64 = 0x71;
/// Multihash code of BLAKE3.
pub const HASH_BLAKE3: u64 = 0x1e;
/// Length of the binary form of an id, in bytes.
pub const ID_BYTES: usize = 36;

/// What the bytes under an id are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Plain bytes: codec raw.
    File,
    /// A directory listing: codec DAG-CBOR.
    Directory,
}

impl Kind {
    const fn codec(self) -> u64 {
        match self {
            Kind::File => CODEC_RAW,
            Kind::Directory => CODEC_DAG_CBOR,
        }
    }
}

/// The name of some content: its BLAKE3 hash and what its bytes mean.
///
/// Written as a CIDv1 in base32. No claim of IPFS compatibility is made: the
/// hash is that of the whole content, whatever its size.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContentId {
    kind: Kind,
    hash: [u8; 32],
}

/// Why a text or byte string is not a content id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdError {
    #[error("'{0}' is neither a CID nor 64 hex digits")]
    NotAnId(String),
    #[error("this is a CID of version 0; ids here are CIDv1 with a BLAKE3 hash")]
    OldVersion,
    #[error("the CID's codec 0x{0:x} is neither raw (0x55) nor DAG-CBOR (0x71)")]
    ForeignCodec(u64),
    #[error("the CID's hash function 0x{0:x} is not BLAKE3 (0x1e)")]
    ForeignHash(u64),
    #[error("the CID's hash has {0} bytes instead of 32")]
    HashLength(usize),
}

impl ContentId {
    pub const fn new(kind: Kind, hash: [u8; 32]) -> Self {
        ContentId { kind, hash }
    }

    /// The id of a file with this hash.
    pub fn file(hash: blake3::Hash) -> Self {
        ContentId::new(Kind::File, *hash.as_bytes())
    }

    /// The id of a directory whose listing has this hash.
    pub fn directory(hash: blake3::Hash) -> Self {
        ContentId::new(Kind::Directory, *hash.as_bytes())
    }

    pub const fn kind(&self) -> Kind {
        self.kind
    }

    pub const fn is_directory(&self) -> bool {
        matches!(self.kind, Kind::Directory)
    }

    /// The BLAKE3 hash of the bytes; also the key of provider records.
    pub const fn hash(&self) -> &[u8; 32] {
        &self.hash
    }

    pub fn root(&self) -> blake3::Hash {
        blake3::Hash::from_bytes(self.hash)
    }

    pub fn to_cid(self) -> Cid {
        // 32 bytes always fit the 64 that a CID's multihash has room for.
        let hash = Multihash::wrap(HASH_BLAKE3, &self.hash).unwrap_or_default();
        Cid::new_v1(self.kind.codec(), hash)
    }

    pub fn from_cid(cid: &Cid) -> Result<Self, IdError> {
        if cid.version() != cid::Version::V1 {
            return Err(IdError::OldVersion);
        }
        let kind = match cid.codec() {
            CODEC_RAW => Kind::File,
            CODEC_DAG_CBOR => Kind::Directory,
            other => return Err(IdError::ForeignCodec(other)),
        };
        if cid.hash().code() != HASH_BLAKE3 {
            return Err(IdError::ForeignHash(cid.hash().code()));
        }
        let digest = cid.hash().digest();
        let hash = digest.try_into().map_err(|_| IdError::HashLength(digest.len()))?;
        Ok(ContentId { kind, hash })
    }

    /// The binary CID: `01 55|71 1e 20` and the hash.
    pub fn to_bytes(self) -> [u8; ID_BYTES] {
        let mut bytes = [0; ID_BYTES];
        // All four prefix values are below 0x80, hence one varint byte each.
        bytes[..4].copy_from_slice(&[1, self.kind.codec() as u8, HASH_BLAKE3 as u8, 32]);
        bytes[4..].copy_from_slice(&self.hash);
        bytes
    }

    pub fn from_bytes(bytes: &[u8]) -> Result<Self, IdError> {
        let not_an_id = || IdError::NotAnId(hex::encode(&bytes[..bytes.len().min(64)]));
        let cid = Cid::try_from(bytes).map_err(|_| not_an_id())?;
        let id = Self::from_cid(&cid)?;
        if id.to_bytes() == bytes { Ok(id) } else { Err(not_an_id()) }
    }
}

impl fmt::Display for ContentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_cid().fmt(f)
    }
}

impl fmt::Debug for ContentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ContentId {
    type Err = IdError;

    /// Accepts a CIDv1 in any multibase, or the 64 hex digits of a file's hash.
    fn from_str(text: &str) -> Result<Self, IdError> {
        let text = text.trim();
        let mut hash = [0; 32];
        if text.len() == 64 && hex::decode_to_slice(text, &mut hash).is_ok() {
            return Ok(ContentId::new(Kind::File, hash));
        }
        let shown = || IdError::NotAnId(text.chars().take(100).collect());
        let cid = Cid::try_from(text).map_err(|_| shown())?;
        Self::from_cid(&cid)
    }
}

impl Serialize for ContentId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            serializer.serialize_bytes(&self.to_bytes())
        }
    }
}

impl<'de> Deserialize<'de> for ContentId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            let text = String::deserialize(deserializer)?;
            text.parse().map_err(de::Error::custom)
        } else {
            let bytes = serde_bytes::ByteArray::<ID_BYTES>::deserialize(deserializer)?;
            ContentId::from_bytes(&bytes[..]).map_err(de::Error::custom)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_ids() {
        let id = ContentId::file(blake3::hash(b""));
        // `b3sum` of nothing, behind the four bytes 01 55 1e 20, in base32.
        let text = "bafkr4ifpcne3t5pzugtkaqcn5i3nzskjtpfslsnnyejlpte2spfoihzsmi";
        assert_eq!(id.to_string(), text);
        assert_eq!(id.to_bytes()[..4], [1, 0x55, 0x1e, 32]);
        let hex = blake3::hash(b"").to_hex();
        assert_eq!(hex.as_str().parse::<ContentId>(), Ok(id));
        assert!(ContentId::directory(blake3::hash(b"")).to_string().starts_with("bafyr4i"));
    }

    #[test]
    fn foreign_ids_say_what_is_wrong() {
        let parse = |text: &str| text.parse::<ContentId>();
        assert!(matches!(parse("hello"), Err(IdError::NotAnId(_))));
        assert!(matches!(parse(""), Err(IdError::NotAnId(_))));
        assert_eq!(parse("QmbWqxBEKC3P8tqsKc98xmWNzrzDtRLMiMPL8wBuTGsMnR"), Err(IdError::OldVersion));
        let sha = Cid::new_v1(CODEC_RAW, Multihash::wrap(0x12, &[7; 32]).unwrap());
        assert_eq!(parse(&sha.to_string()), Err(IdError::ForeignHash(0x12)));
        let codec = Cid::new_v1(0x70, Multihash::wrap(HASH_BLAKE3, &[7; 32]).unwrap());
        assert_eq!(parse(&codec.to_string()), Err(IdError::ForeignCodec(0x70)));
        let short = Cid::new_v1(CODEC_RAW, Multihash::wrap(HASH_BLAKE3, &[7; 20]).unwrap());
        assert_eq!(parse(&short.to_string()), Err(IdError::HashLength(20)));
    }

    proptest! {
        #[test]
        fn round_trips(hash: [u8; 32], directory: bool) {
            let kind = if directory { Kind::Directory } else { Kind::File };
            let id = ContentId::new(kind, hash);
            prop_assert_eq!(id.to_string().parse::<ContentId>(), Ok(id));
            prop_assert_eq!(ContentId::from_bytes(&id.to_bytes()), Ok(id));
            prop_assert_eq!(&id.to_cid().to_bytes()[..], &id.to_bytes()[..]);
            let json = serde_json::to_string(&id).unwrap();
            prop_assert_eq!(serde_json::from_str::<ContentId>(&json).unwrap(), id);
            let cbor = cbor4ii::serde::to_vec(Vec::new(), &id).unwrap();
            prop_assert_eq!(cbor4ii::serde::from_slice::<ContentId>(&cbor).unwrap(), id);
        }

        #[test]
        fn garbage_never_panics(text in ".*", bytes: Vec<u8>) {
            let _ = text.parse::<ContentId>();
            let _ = ContentId::from_bytes(&bytes);
        }
    }
}

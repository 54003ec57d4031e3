//! Bodies sealed end to end (protocol section 4): relays see sizes only.
//!
//! An app asks for it by its name: requests and responses of apps whose name begins with
//! [`PREFIX`] are sealed by the author's and the destination's node, always, so that nothing can
//! be talked into sending them open.
//!
//! A sealed request is `1 ++ e ++ chunks`, a response `1 ++ f ++ chunks`; `e` and `f` are X25519
//! public keys made for this one message. With `d` the destination's node key as X25519 key,
//!
//! ```text
//! request  = HKDF-SHA256(salt "por/seal1", DH(e, d),             "request"  ++ e ++ context)
//! response = HKDF-SHA256(salt "por/seal1", DH(e, f) ++ DH(e, d), "response" ++ f ++ SHA-256(sealed request) ++ context)
//! context  = borsh(network, author, destination, app)
//! ```
//!
//! so a body opens only at the destination, for the author and app that it was sealed for, and a
//! response only for its request. Who learns the destination's key later can open old requests, but
//! not their responses. Chunks are ChaCha20-Poly1305 of [`CHUNK`] bytes each, the last one shorter
//! (an empty body is one empty chunk); the nonce is `000 ++ number: u64 BE ++ 1 if last`, so chunks
//! cannot be swapped, repeated or left out.

#[cfg(test)]
mod tests;

use borsh::BorshSerialize;
use bytes::Bytes;
use chacha20poly1305::aead::AeadInPlace as _;
use chacha20poly1305::{ChaCha20Poly1305, Key, KeyInit as _, Nonce, Tag};
use ed25519_dalek::{SigningKey, VerifyingKey};
use hkdf::Hkdf;
use por_types::{Network, NodeKey, NodeSecret};
use rand::RngCore as _;
use sha2::{Digest as _, Sha256};
use x25519_dalek::{X25519_BASEPOINT_BYTES, x25519};
use zeroize::Zeroizing;

/// Beginning of the names of apps whose bodies are sealed.
pub const PREFIX: &str = "sealed/";

/// Bytes of the body in one chunk.
pub const CHUNK: usize = 64 << 10;

const VERSION: u8 = 1;
/// A response of this one byte: the destination could not open the request.
const REFUSED: u8 = 0;
const TAG: usize = 16;
const HEADER: usize = 1 + 32;
const SALT: &[u8] = b"por/seal1";

/// Why a body could not be sealed or opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    #[error("the destination's key cannot be sealed to; check the key")]
    Key,
    #[error("not a sealed body of this version; both nodes need the same version of sealing")]
    Malformed,
    #[error("the body was changed, cut off or sealed for somebody else; do not trust it")]
    Forged,
    #[error("the destination could not open the request; check its key and version")]
    Refused,
}

/// True if bodies of this app are sealed.
pub fn is_sealed(app: &str) -> bool {
    app.starts_with(PREFIX)
}

/// Bytes of a body of `len` bytes once it is sealed.
pub fn sealed_len(len: u64) -> u64 {
    let chunks = len.div_ceil(CHUNK as u64).max(1);
    len.saturating_add(HEADER as u64).saturating_add(chunks.saturating_mul(TAG as u64))
}

/// Bytes of the longest body that has at most `sealed` bytes once it is sealed; `None` if none has.
pub fn open_len(sealed: u64) -> Option<u64> {
    let (chunk, tag) = (CHUNK as u64, TAG as u64);
    let rest = sealed.checked_sub(HEADER as u64)?;
    let (whole, part) = (rest / (chunk + tag), rest % (chunk + tag));
    match part.checked_sub(tag) {
        Some(part) => Some(whole * chunk + part),
        None => (whole > 0).then_some(whole * chunk),
    }
}

/// Whom a body is for, and whose it is.
#[derive(Clone, Copy, Debug, BorshSerialize)]
pub struct Context<'a> {
    pub network: &'a Network,
    pub author: &'a NodeKey,
    pub destination: &'a NodeKey,
    pub app: &'a str,
}

impl Context<'_> {
    fn bytes(&self) -> Vec<u8> {
        // Memory cannot refuse a write, and no part of it has no borsh form.
        borsh::to_vec(self).unwrap_or_default()
    }
}

type Secret = Zeroizing<[u8; 32]>;

/// What both ends keep of a request until its response.
struct Exchange {
    /// Shared by the request's key and the destination's.
    shared: Secret,
    /// SHA-256 of the sealed request.
    request: [u8; 32],
    context: Vec<u8>,
}

impl Exchange {
    fn response_key(&self, fresh: &Secret, public: &[u8; 32]) -> Secret {
        let secret = Zeroizing::new([&fresh[..], &self.shared[..]].concat());
        derive(&secret, &[b"response", public, &self.request, &self.context])
    }
}

/// Opens the response to a request that was sealed.
pub struct ResponseOpener {
    exchange: Exchange,
    ephemeral: Secret,
}

/// Seals the response to a request that was opened.
pub struct ResponseSealer {
    exchange: Exchange,
    /// The request's key.
    author: [u8; 32],
}

/// Seals a request for `context.destination`.
///
/// Errors: [`SealError::Key`].
pub fn seal_request(context: &Context<'_>, body: &[u8]) -> Result<(Bytes, ResponseOpener), SealError> {
    let destination = public_of(context.destination)?;
    let (ephemeral, public) = fresh();
    let shared = agree(&ephemeral, &destination)?;
    let context = context.bytes();
    let key = derive(&shared[..], &[b"request", &public, &context]);
    let sealed = seal(&key, &public, body)?;
    let request = Sha256::digest(&sealed).into();
    Ok((sealed, ResponseOpener { exchange: Exchange { shared, request, context }, ephemeral }))
}

/// Opens a request with the destination's key.
///
/// Errors: [`SealError::Malformed`], [`SealError::Forged`]; answer with [`refusal`].
pub fn open_request(
    context: &Context<'_>,
    secret: &NodeSecret,
    sealed: &[u8],
) -> Result<(Bytes, ResponseSealer), SealError> {
    let (author, chunks) = split(sealed)?;
    let seed = Zeroizing::new(secret.seed());
    let own = Zeroizing::new(SigningKey::from_bytes(&seed).to_scalar_bytes());
    let shared = agree(&own, &author)?;
    let context = context.bytes();
    let key = derive(&shared[..], &[b"request", &author, &context]);
    let body = open(&key, chunks)?;
    let request = Sha256::digest(sealed).into();
    Ok((body, ResponseSealer { exchange: Exchange { shared, request, context }, author }))
}

/// What a destination answers to a request that it cannot open.
pub fn refusal() -> Bytes {
    Bytes::from_static(&[REFUSED])
}

impl ResponseOpener {
    /// Errors: [`SealError::Refused`], [`SealError::Malformed`], [`SealError::Forged`].
    pub fn open(&self, sealed: &[u8]) -> Result<Bytes, SealError> {
        if sealed == [REFUSED] {
            return Err(SealError::Refused);
        }
        let (public, chunks) = split(sealed)?;
        let fresh = agree(&self.ephemeral, &public)?;
        open(&self.exchange.response_key(&fresh, &public), chunks)
    }
}

impl ResponseSealer {
    /// Each call makes another key, so that a second answer after a restart is safe.
    ///
    /// Errors: [`SealError::Key`] if the request's key was none; opening has refused it before.
    pub fn seal(&self, body: &[u8]) -> Result<Bytes, SealError> {
        let (ephemeral, public) = fresh();
        let fresh = agree(&ephemeral, &self.author)?;
        seal(&self.exchange.response_key(&fresh, &public), &public, body)
    }
}

fn fresh() -> (Secret, [u8; 32]) {
    let mut secret = Zeroizing::new([0; 32]);
    rand::rng().fill_bytes(&mut secret[..]);
    let public = x25519(*secret, X25519_BASEPOINT_BYTES);
    (secret, public)
}

/// A node key as X25519 key.
fn public_of(key: &NodeKey) -> Result<[u8; 32], SealError> {
    let key = VerifyingKey::from_bytes(&key.0).map_err(|_| SealError::Key)?;
    if key.is_weak() { Err(SealError::Key) } else { Ok(key.to_montgomery().to_bytes()) }
}

/// Errors: [`SealError::Key`] for a point that makes every result the same.
fn agree(secret: &Secret, public: &[u8; 32]) -> Result<Secret, SealError> {
    let shared = Zeroizing::new(x25519(**secret, *public));
    if shared.iter().all(|byte| *byte == 0) { Err(SealError::Key) } else { Ok(shared) }
}

fn derive(secret: &[u8], info: &[&[u8]]) -> Secret {
    let mut key = Zeroizing::new([0; 32]);
    let hkdf = Hkdf::<Sha256>::new(Some(SALT), secret);
    let expanded = hkdf.expand_multi_info(info, &mut key[..]);
    debug_assert!(expanded.is_ok(), "32 bytes are never too many");
    key
}

fn nonce(number: u64, last: bool) -> Nonce {
    let mut nonce = Nonce::default();
    nonce[3..11].copy_from_slice(&number.to_be_bytes());
    nonce[11] = u8::from(last);
    nonce
}

fn seal(key: &Secret, public: &[u8; 32], body: &[u8]) -> Result<Bytes, SealError> {
    let cipher = ChaCha20Poly1305::new(Key::from_slice(&key[..]));
    let mut sealed = Vec::with_capacity(usize::try_from(sealed_len(body.len() as u64)).unwrap_or_default());
    sealed.push(VERSION);
    sealed.extend_from_slice(public);
    let last = body.len().div_ceil(CHUNK).max(1) - 1;
    for number in 0..=last {
        let chunk = &body[number * CHUNK..body.len().min((number + 1) * CHUNK)];
        let start = sealed.len();
        sealed.extend_from_slice(chunk);
        let nonce = nonce(number as u64, number == last);
        // Only chunks beyond 256 GiB are refused.
        let tag = cipher
            .encrypt_in_place_detached(&nonce, &[], &mut sealed[start..])
            .map_err(|_| SealError::Malformed)?;
        sealed.extend_from_slice(&tag);
    }
    Ok(sealed.into())
}

fn split(sealed: &[u8]) -> Result<([u8; 32], &[u8]), SealError> {
    match sealed.split_first_chunk::<HEADER>() {
        Some(([VERSION, public @ ..], chunks)) => Ok((*public, chunks)),
        _ => Err(SealError::Malformed),
    }
}

fn open(key: &Secret, chunks: &[u8]) -> Result<Bytes, SealError> {
    let cipher = ChaCha20Poly1305::new(Key::from_slice(&key[..]));
    let mut body = Vec::with_capacity(chunks.len());
    let count = chunks.len().div_ceil(CHUNK + TAG);
    if count == 0 {
        return Err(SealError::Malformed);
    }
    for (number, chunk) in chunks.chunks(CHUNK + TAG).enumerate() {
        let (chunk, tag) = chunk.split_last_chunk::<TAG>().ok_or(SealError::Malformed)?;
        let start = body.len();
        body.extend_from_slice(chunk);
        let nonce = nonce(number as u64, number + 1 == count);
        cipher
            .decrypt_in_place_detached(&nonce, &[], &mut body[start..], Tag::from_slice(tag))
            .map_err(|_| SealError::Forged)?;
    }
    Ok(body.into())
}

//! The network as a download sees it: who has something, what a question costs, and
//! asking it. Behind it is the running daemon, or a store on this machine.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use por_node::client::{ApiRequest, Client, QuoteRequest};
use por_types::{NodeKey, Yocto};

use crate::{
    answer::Answerer,
    exit::{Exit, Failure},
    landing::{Files, Landing},
    proto::Pricing,
    store::Store,
};

/// One paid question.
#[derive(Clone, Debug)]
pub struct Call {
    pub to: NodeKey,
    pub app: &'static str,
    pub body: Bytes,
    /// Most bytes of the answer; each is paid for.
    pub limit: u64,
    /// What the server asks for itself.
    pub server_price: Yocto,
    /// Most that server and route may cost together.
    pub max_price: Yocto,
    /// Time until the answer, at most.
    pub deadline: Duration,
}

/// The answer, as long as its server signed it.
#[derive(Clone, Debug)]
pub struct Reply {
    pub body: Bytes,
    /// What was paid.
    pub price: Yocto,
}

/// Where questions go. Every method ends within a bounded time.
pub trait Network: Send + Sync + 'static {
    /// Who announced content with this hash.
    fn providers(
        &self,
        hash: &[u8; 32],
        limit: usize,
        wait: Duration,
    ) -> impl Future<Output = Result<Vec<NodeKey>, Failure>> + Send;

    /// What a question costs, server and route together; asking this is free.
    fn quote(
        &self,
        to: NodeKey,
        app: &'static str,
        body_len: u64,
        limit: u64,
        server_price: Yocto,
    ) -> impl Future<Output = Result<Yocto, Failure>> + Send;

    /// Asks and pays.
    fn request(&self, call: Call) -> impl Future<Output = Result<Reply, Failure>> + Send;

    /// Whether what leads to the network is there: this user's own node, not those behind it.
    fn is_there(&self) -> impl Future<Output = bool> + Send {
        async { true }
    }

    /// Has the node itself write what is fetched; `None` where it cannot.
    fn land(&self, files: &Files) -> impl Future<Output = Option<Landing>> + Send {
        let _ = files;
        async { None }
    }
}

/// The network through the running daemon of a home.
#[derive(Clone, Debug)]
pub struct Daemon {
    client: Client,
    /// Where it may take downloads on.
    home: Option<PathBuf>,
}

impl Daemon {
    /// # Errors
    /// [`Exit::Unreachable`] if no daemon runs there.
    pub fn of_home(home: &Path) -> Result<Self, Failure> {
        Ok(Daemon { client: Client::from_home(home)?, home: Some(home.to_owned()) })
    }

    pub const fn new(client: Client) -> Self {
        Daemon { client, home: None }
    }

    pub const fn client(&self) -> &Client {
        &self.client
    }
}

impl Network for Daemon {
    async fn providers(
        &self,
        hash: &[u8; 32],
        limit: usize,
        wait: Duration,
    ) -> Result<Vec<NodeKey>, Failure> {
        let found = self.client.providers(hash, limit, wait).await?;
        Ok(found.into_iter().take(limit).map(|provider| provider.node_key).collect())
    }

    async fn quote(
        &self,
        to: NodeKey,
        app: &'static str,
        body_len: u64,
        limit: u64,
        server_price: Yocto,
    ) -> Result<Yocto, Failure> {
        let question = QuoteRequest {
            destination: to,
            app: Some(app.to_owned()),
            body_len,
            response_limit: limit,
            server_price,
            max_latency_ms: None,
            alternatives: None,
        };
        let quote = self.client.quote(&question).await?;
        let cheapest = quote.routes.iter().map(|route| route.price).min();
        cheapest.ok_or_else(|| {
            Failure::new(
                Exit::NoRoute,
                format!("no route to {to}"),
                "open a channel with `por channel propose`",
            )
        })
    }

    async fn request(&self, call: Call) -> Result<Reply, Failure> {
        let limit = call.limit;
        let request = ApiRequest {
            server_price: call.server_price,
            max_price: Some(call.max_price),
            deadline: call.deadline,
            ..ApiRequest::new(call.to, call.app, call.body, limit)
        };
        let answered = self.client.request(request).await?;
        if answered.body.len() as u64 > limit {
            return Err(Failure::new(Exit::VerificationFailed, "the answer is longer than its limit", ""));
        }
        Ok(Reply { body: answered.body, price: answered.price })
    }

    async fn is_there(&self) -> bool {
        self.client.is_there().await
    }

    async fn land(&self, files: &Files) -> Option<Landing> {
        Landing::open(self.home.as_deref()?, files).await
    }
}

/// A store on this machine as the only provider, for free.
#[derive(Clone, Debug)]
pub struct Local {
    answerer: Answerer,
}

impl Local {
    /// The key under which the store appears.
    pub const KEY: NodeKey = NodeKey([0; 32]);

    pub fn new(store: Store) -> Self {
        Local { answerer: Answerer::new(store, Pricing::default()) }
    }
}

impl Network for Local {
    async fn providers(&self, _: &[u8; 32], _: usize, _: Duration) -> Result<Vec<NodeKey>, Failure> {
        Ok(vec![Local::KEY])
    }

    async fn quote(
        &self,
        _: NodeKey,
        _: &'static str,
        _: u64,
        _: u64,
        price: Yocto,
    ) -> Result<Yocto, Failure> {
        Ok(price)
    }

    async fn request(&self, call: Call) -> Result<Reply, Failure> {
        let answerer = self.answerer.clone();
        let body = blocking(move || answerer.answer(call.app, &call.body, call.limit)).await?;
        Ok(Reply { body: body.into(), price: Yocto::ZERO })
    }
}

/// Runs blocking work off the async threads.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Failure::new(Exit::Other, format!("internal error: {error}"), "report this"))
}

/// Reads a provider as users name it: a node key (`ed25519:...`) or a libp2p peer id.
pub fn parse_peer(text: &str) -> Result<NodeKey, String> {
    if let Ok(key) = text.parse() {
        return Ok(key);
    }
    // An ed25519 peer id is its public key in a protobuf in an identity multihash.
    const PREFIX: [u8; 6] = [0x00, 0x24, 0x08, 0x01, 0x12, 0x20];
    let bytes =
        if text.len() <= 100 { bs58::decode(text).into_vec().unwrap_or_default() } else { Vec::new() };
    match bytes.strip_prefix(&PREFIX).map(NodeKey::try_from) {
        Some(Ok(key)) => Ok(key),
        _ => Err(format!("'{text}' is neither a node key (ed25519:...) nor a peer id (12D3KooW...)")),
    }
}

#[cfg(test)]
mod tests {
    use por_node::client::{ClientError, ErrorCode};

    use super::*;

    #[test]
    fn peers_are_read_in_both_forms() {
        let key = NodeKey([7; 32]);
        assert_eq!(parse_peer(&key.to_string()), Ok(key));
        let mut bytes = vec![0x00, 0x24, 0x08, 0x01, 0x12, 0x20];
        bytes.extend_from_slice(&key.0);
        let peer = bs58::encode(&bytes).into_string();
        assert!(peer.starts_with("12D3KooW"));
        assert_eq!(parse_peer(&peer), Ok(key));
        for wrong in ["", "ed25519:", "12D3KooW", "hello", &"1".repeat(10_000)] {
            assert!(parse_peer(wrong).is_err());
        }
    }

    #[test]
    fn every_error_of_the_daemon_keeps_its_exit_code() {
        for code in ErrorCode::ALL {
            let failure = Failure::from(ClientError::new(code, "what", "fix"));
            assert_eq!(failure.exit.code(), code.exit_code());
        }
    }
}

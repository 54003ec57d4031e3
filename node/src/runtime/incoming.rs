//! A request as its app sees it: opened, where the app's bodies are sealed.

use bytes::Bytes;
use libp2p_por::{IncomingRequest, RespondError};
use por_types::{Network, NodeKey, NodeSecret, RequestId, Yocto};

use crate::seal::{self, Context, ResponseSealer};

/// What a node needs to open requests.
#[derive(Clone)]
pub(crate) struct Opener {
    network: Network,
    secret: NodeSecret,
}

pub(crate) struct Incoming {
    request: IncomingRequest,
    body: Bytes,
    response_limit: u64,
    sealer: Option<ResponseSealer>,
}

impl Opener {
    pub(crate) fn new(network: Network, secret: NodeSecret) -> Opener {
        Opener { network, secret }
    }

    /// `None`: it could not be opened, and its author has been told.
    pub(crate) async fn open(&self, request: IncomingRequest) -> Option<Incoming> {
        if !seal::is_sealed(request.app()) {
            let (body, response_limit) = (request.body().clone(), request.response_limit());
            return Some(Incoming { request, body, response_limit, sealer: None });
        }
        let context = Context {
            network: &self.network,
            author: &request.author(),
            destination: &self.secret.public(),
            app: request.app(),
        };
        // An author that leaves no room for an answer has asked for none.
        let limit = seal::open_len(request.response_limit());
        let opened = seal::open_request(&context, &self.secret, request.body());
        match (opened, limit) {
            (Ok((body, sealer)), Some(response_limit)) => {
                Some(Incoming { request, body, response_limit, sealer: Some(sealer) })
            }
            (opened, _) => {
                let error = opened.err();
                tracing::warn!(request = %request.id(), ?error, "a sealed request could not be opened");
                let refusal = if request.response_limit() > 0 { seal::refusal() } else { Bytes::new() };
                if let Err(error) = request.respond(refusal).await {
                    tracing::error!(request = %request.id(), %error, "a request stays unanswered");
                }
                None
            }
        }
    }
}

impl Incoming {
    pub(crate) fn id(&self) -> RequestId {
        self.request.id()
    }

    pub(crate) fn from(&self) -> NodeKey {
        self.request.from()
    }

    pub(crate) fn author(&self) -> NodeKey {
        self.request.author()
    }

    pub(crate) fn body(&self) -> &Bytes {
        &self.body
    }

    /// Most bytes of the answer before it is sealed.
    pub(crate) fn response_limit(&self) -> u64 {
        self.response_limit
    }

    pub(crate) fn server_price(&self) -> Yocto {
        self.request.server_price()
    }

    pub(crate) async fn respond(&self, body: Bytes) -> Result<(), RespondError> {
        let (len, limit) = (body.len() as u64, self.response_limit);
        if len > limit {
            return Err(RespondError::TooLarge { len, limit });
        }
        match &self.sealer {
            // The key was good when the request was opened with it.
            Some(sealer) => {
                self.request.respond(sealer.seal(&body).unwrap_or_else(|_| seal::refusal())).await
            }
            None => self.request.respond(body).await,
        }
    }
}

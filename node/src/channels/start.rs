//! This node's channels at its start, read one by one. Reading the whole graph can take minutes, and a node that does
//! not know its channels answers nobody: whoever waits for it would sever it.

use futures::TryStreamExt;
use futures::stream::FuturesOrdered;
use por_core::GraphEdge;
use por_types::interface::ChannelView;
use por_types::{ChannelId, NodeKey};

use crate::chain::{Chain, ChainError, Page, pages};
use crate::graph::is_open;

/// Questions at a time.
const IN_FLIGHT: usize = 4;

/// What the chain has of these channels, in order; those that it has forgotten, or that are not of `own`, are left
/// out.
pub(super) async fn read(
    chain: &Chain,
    mut known: Vec<ChannelId>,
    own: NodeKey,
) -> Result<Vec<ChannelView>, ChainError> {
    known.sort_unstable();
    let mut questions = FuturesOrdered::new();
    let mut views: Vec<ChannelView> = Vec::new();
    for page in pages(&known) {
        if questions.len() >= IN_FLIGHT
            && let Some(page) = questions.try_next().await?
        {
            views.extend(page);
        }
        questions.push_back(ask(chain, page));
    }
    while let Some(page) = questions.try_next().await? {
        views.extend(page);
    }
    views.retain(|view| {
        let named = known.binary_search(&view.channel).is_ok();
        named && (view.key_a == own || view.key_b == own)
    });
    Ok(views)
}

async fn ask(chain: &Chain, (first, len): Page) -> Result<Vec<ChannelView>, ChainError> {
    match len {
        // A record by itself is a shorter answer.
        1 => Ok(chain.channel(first).await?.into_iter().collect()),
        _ => chain.channels(first.0, len).await,
    }
}

/// The edges of these channels, as the graph has them.
pub(super) fn edges(views: &[ChannelView]) -> Vec<GraphEdge> {
    let edge = |view: &ChannelView| GraphEdge {
        channel: view.channel,
        a: view.key_a,
        b: view.key_b,
        terms: view.terms.clone(),
        open: is_open(&view.status),
    };
    views.iter().map(edge).collect()
}

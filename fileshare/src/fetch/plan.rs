//! What a download will cost, to the yocto, before it is paid for.

use std::collections::HashMap;

use por_types::{NodeKey, Yocto};
use serde::Serialize;

use super::{GIB, Session};
use crate::{
    exit::{Exit, Failure},
    holes::Holes,
    id::ContentId,
    net::Network,
    part::{PartError, Span, UNIT},
    pool::Offer,
    proto::{GET_APP, Question, get_limit},
    slice::Window,
};

/// What one provider would take for everything that is left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cost {
    pub node: NodeKey,
    /// The provider's own share.
    pub server: Yocto,
    /// The nodes on the way.
    pub route: Yocto,
    /// Both.
    pub total: Yocto,
    /// Both, per GiB, measured on a full window.
    pub per_gib: Yocto,
}

/// What is left to fetch and what that costs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// Bytes of content.
    pub bytes: u64,
    /// Requests.
    pub windows: u64,
    /// The providers within the limits, the cheapest first.
    pub costs: Vec<Cost>,
    /// Most that it costs, whichever of them delivers what.
    pub at_most: Yocto,
}

/// Windows by the lengths of question and answer, which alone decide the price.
#[derive(Debug, Default)]
pub struct Shapes(HashMap<(u64, u64), u64>, u64);

impl Shapes {
    pub fn add(&mut self, id: ContentId, size: u64, window: Window) -> Result<(), Failure> {
        let question = Question::get(id, window).encode();
        let question = question.map_err(|error| Failure::new(Exit::Other, error.to_string(), ""))?;
        *self.0.entry((question.len() as u64, get_limit(size, window))).or_default() += 1;
        self.1 += super::content_of(window);
        Ok(())
    }

    /// Adds the windows of a span that cover its missing units, holes as such.
    pub fn add_span(
        &mut self,
        span: &Span,
        window_len: u64,
        missing: impl Fn(u64) -> bool,
        holes: &Holes,
    ) -> Result<(), Failure> {
        let windows = span.windows(window_len, missing, holes).map_err(PartError::from)?;
        windows.into_iter().try_for_each(|window| self.add(span.id, span.size, window))
    }
}

impl<N: Network> Session<N> {
    /// Prices what is left with every provider, and drops those that are too dear.
    ///
    /// # Errors
    /// [`Exit::Budget`] if nobody is within --max-price and --max-spend.
    pub async fn plan(&self, shapes: &Shapes) -> Result<Plan, Failure> {
        if shapes.0.is_empty() {
            return Ok(Plan::default());
        }
        let mut costs = Vec::new();
        let mut refused = Vec::new();
        for offer in self.pool.offers() {
            match self.cost(offer, shapes).await {
                Ok(cost) => costs.push(cost),
                Err(failure) => {
                    self.pool.ban(offer.node, failure.clone());
                    refused.push(failure.context(format_args!("provider {}", offer.node)));
                }
            }
        }
        costs.sort_by_key(|cost| cost.total);
        let at_most = costs.last().map(|cost| cost.total);
        let Some(at_most) = at_most else {
            let nobody = || Failure::new(Exit::NotFound, "no provider has it", "");
            return Err(refused.into_iter().next().unwrap_or_else(nobody));
        };
        Ok(Plan { bytes: shapes.1, windows: shapes.0.values().sum(), costs, at_most })
    }

    async fn cost(&self, offer: Offer, shapes: &Shapes) -> Result<Cost, Failure> {
        let (mut total, mut server) = (Yocto::ZERO, Yocto::ZERO);
        let absurd = |error: por_types::AmountError| {
            Failure::new(Exit::Budget, format!("its price is absurd: {error}"), "choose another provider")
        };
        for (&(question, limit), &count) in &shapes.0 {
            let price = self.price(offer, question, limit).await?;
            let add = |sum: Yocto, price: Yocto| sum.checked_add(price.checked_mul(count.into())?);
            total = add(total, price).map_err(absurd)?;
            let own = offer.pricing.price(question, limit).map_err(absurd)?;
            server = add(server, own).map_err(absurd)?;
        }
        let per_gib = self.per_gib(offer).await?;
        let dear = |what: String, fix: &str| Err(Failure::new(Exit::Budget, what, fix));
        if let Some(max) = self.limits.max_price.filter(|max| per_gib > *max) {
            let (per_gib, max) = (per_gib.to_near_string(), max.to_near_string());
            let what = format!("it costs {per_gib} per GiB with the way to it, more than the {max} allowed");
            return dear(what, "raise --max-price, or wait for a cheaper provider");
        }
        let left = self.budget.max().map(|max| max.saturating_sub(self.budget.spent()));
        if let Some(left) = left.filter(|left| total > *left) {
            let what = format!(
                "it costs {} with the way to it, but only {} may be spent",
                total.to_near_string(),
                left.to_near_string()
            );
            return dear(what, "raise --max-spend, or wait for a cheaper provider");
        }
        Ok(Cost { node: offer.node, server, route: total.saturating_sub(server), total, per_gib })
    }

    /// Price of a GiB, measured on one window of the length that will be asked for.
    async fn per_gib(&self, offer: Offer) -> Result<Yocto, Failure> {
        let window = self.limits.window.clamp(UNIT, offer.max_window);
        let body_len = 64;
        let own = super::server_price(offer, body_len, window)?;
        let price = self.net.quote(offer.node, GET_APP, body_len, window, own).await?;
        let per_gib = price.checked_mul(GIB.into()).map(|price| Yocto(price.0 / u128::from(window)));
        Ok(per_gib.unwrap_or(Yocto(u128::MAX)))
    }

    /// Bytes per window that every provider answers.
    pub fn window_len(&self) -> u64 {
        let offers = self.pool.offers();
        offers.iter().map(|offer| offer.max_window).fold(self.limits.window, u64::min).max(UNIT)
    }
}

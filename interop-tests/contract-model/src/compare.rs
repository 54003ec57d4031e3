//! Contract and model side by side: one call on both, then what they say about it.

use std::collections::{BTreeMap, BTreeSet};

use por_types::interface::*;
use por_types::{AccountId, Yocto};
use serde_json::json;

use crate::host::Host;
use crate::model::{Call, Found, Model, NO_DEPOSIT, PURSE_STORAGE, State};
use crate::vm::{CONTRACT, Vm, account};

/// 0.0001 NEAR for each Tgas.
const REWARD_PER_TGAS: u128 = 100_000_000_000_000_000_000;

/// What differs, in words.
pub type Checked<T> = Result<T, String>;

/// Calls of a method, and how many were accepted.
pub type Counts = BTreeMap<&'static str, (u64, u64)>;

pub struct Pair<H = Vm> {
    pub vm: H,
    pub model: Model,
    pub counts: Counts,
    pub trace: Vec<String>,
    /// Money appeared or vanished.
    pub unconserved: bool,
    /// The check under way has begun to charge: stakes are between before and after.
    charging: bool,
    /// Claims that the check under way has paid already. The receivers have them in the model too,
    /// which pays all claims at the check's end and takes these back then.
    early: BTreeMap<usize, u128>,
    /// Accounts that may still be owed part of a check's deposit.
    closers: BTreeSet<AccountId>,
    accepted: u64,
}

fn differ<T: PartialEq + std::fmt::Debug>(what: &str, contract: &T, model: &T) -> Checked<()> {
    if contract == model {
        return Ok(());
    }
    Err(format!("{what}\n  contract {contract:?}\n  model    {model:?}"))
}

impl<H: Host> Pair<H> {
    /// Initialises the contract that is deployed there.
    pub fn new(mut vm: H, args: &NewArgs) -> Pair<H> {
        let storage = vm.start(args);
        let config = vm.config();
        let model = Model {
            now_ms: vm.now_ms(),
            chain_id: args.chain_id.clone(),
            contract: account(CONTRACT),
            owner: args.owner.clone(),
            treasury_account: args.treasury.clone(),
            anchor: args.anchor.clone().unwrap_or(args.owner.clone()),
            params: args.params.clone(),
            next_params: None,
            next_code: None,
            test: args.test,
            nodes: Vec::new(),
            indices: 0,
            vacant: Default::default(),
            once_left: BTreeSet::new(),
            channels: BTreeMap::new(),
            proposed: 0,
            treasury: 0,
            purses: BTreeMap::new(),
            received: BTreeMap::new(),
            waiting: Default::default(),
            begun: false,
            edges: BTreeMap::new(),
            ripe_ms: 0,
            penalties: Vec::new(),
            storage,
            pool: 0,
            register_storage: config.register_storage.0,
            channel_storage: config.channel_storage.0,
            reached: BTreeMap::new(),
        };
        Pair {
            vm,
            model,
            counts: Counts::new(),
            trace: Vec::new(),
            unconserved: false,
            charging: false,
            early: BTreeMap::new(),
            closers: BTreeSet::new(),
            accepted: 0,
        }
    }

    /// What a close has to attach now.
    pub fn check_deposit(&mut self) -> u128 {
        self.vm.config().check_deposit.0
    }

    /// One call on both. Answers whether it was accepted.
    pub fn call(&mut self, who: &AccountId, call: &Call, attached: u128, tgas: u64) -> Checked<bool> {
        let (method, input) = call.encode();
        let closes = matches!(call, Call::Sever(_) | Call::Finalize(_));
        let check_deposit = if closes { self.check_deposit() } else { 0 };
        let shown = String::from_utf8_lossy(&input).into_owned();
        let executed = self.vm.execute(who, method, input, Yocto(attached), tgas);
        let (done, at_ms) = (executed.result, executed.at_ms);
        self.trace.push(format!("{at_ms} {who} {method} {shown} attached {attached}, {tgas} Tgas"));
        self.model.advance_time(at_ms);
        let mut next = self.model.clone();
        let verdict = next.call(who, call, attached);
        let count = self.counts.entry(method).or_default();
        count.0 += 1;
        if let (Some(line), Err(message)) = (self.trace.last_mut(), &done) {
            line.push_str(&format!(" refused: {message:.100}"));
        }
        match (done, verdict) {
            (Ok(done), Ok(())) => {
                count.1 += 1;
                self.accepted += 1;
                let enqueued = next.waiting.len() > self.model.waiting.len();
                self.model = next;
                let early = self.paid_early(&done.logs)?;
                self.after(who, call, (attached, check_deposit, enqueued), early, done.gas)?;
                Ok(true)
            }
            (Ok(_), Err(codes)) => Err(format!("{method} was accepted, the model refuses it: {codes:?}")),
            (Err(message), Err(codes)) => match error_code(&message) {
                _ if tgas < 60 && is_about_gas(&message) => Ok(false),
                // Part of the stake is charged already.
                Some(code::STAKE_TOO_LOW | code::STAKE_LOCKED) if self.charging => Ok(false),
                Some(code) if codes.contains(&code) => Ok(false),
                None if codes.contains(&NO_DEPOSIT) && message.contains("doesn't accept deposit") => {
                    Ok(false)
                }
                _ => Err(format!("{method} was refused: {message}, the model refuses it for {codes:?}")),
            },
            (Err(message), Ok(())) if self.excused(who, call, attached, tgas, &message) => Ok(false),
            (Err(message), Ok(())) => Err(format!("{method} was refused: {message}, the model accepts it")),
        }
    }

    /// Refusals that depend on what only the contract knows: its gas and its limits.
    fn excused(&mut self, who: &AccountId, call: &Call, attached: u128, tgas: u64, message: &str) -> bool {
        let close = matches!(call, Call::Sever(_) | Call::Finalize(_));
        let waits = |node: usize| {
            let node_ = &self.model.nodes[node];
            self.model.waiting_stakes(node) >= 4 || node_.maturing.len() >= 8 || node_.withdrawing.len() >= 8
        };
        match error_code(message) {
            Some(code::TOO_MANY_PENDING) => self.model.index_of(who).is_some_and(waits),
            Some(code::CHECKS_PENDING) => {
                self.releases(call) || matches!(call, Call::Finalize(_)) && self.model.pending_checks() >= 64
            }
            Some(code::DEPOSIT) => {
                close && attached < self.check_deposit() && (tgas < 60 || !self.model.waiting.is_empty())
            }
            // Part of the stake is charged already.
            Some(code::STAKE_TOO_LOW | code::STAKE_LOCKED) => self.charging,
            Some(_) => false,
            None => tgas < 60 && is_about_gas(message),
        }
    }

    /// Gives the receivers of claims what was paid before their check's end. Answers the early
    /// payments of checks that are finished now: the model has to arrive at the same itself.
    fn paid_early(&mut self, logs: &[String]) -> Checked<Vec<(usize, u128)>> {
        let mut finished = Vec::new();
        for log in logs {
            let json = log.strip_prefix("EVENT_JSON:").ok_or("a log that is no event")?;
            match serde_json::from_str(json).map_err(|error| format!("{error} in {json}"))? {
                Event::Reimbursed(claims) => {
                    for ReimbursedEvent { account, amount, .. } in claims {
                        let node = self.model.index_of(&account);
                        let node = node.ok_or_else(|| format!("{account} was reimbursed without a node"))?;
                        self.model.nodes[node].owed += amount.0;
                        *self.early.entry(node).or_default() += amount.0;
                    }
                }
                Event::Checked(checks) if checks.iter().any(|check| check.partition.is_some()) => {
                    finished.extend(std::mem::take(&mut self.early));
                }
                _ => {}
            }
        }
        Ok(finished)
    }

    /// Once the model has paid all claims of a check, those that were paid early are taken back.
    fn paid_all(&mut self, early: Vec<(usize, u128)>) -> Checked<()> {
        for (node, amount) in early {
            let node = &mut self.model.nodes[node];
            node.owed = node
                .owed
                .checked_sub(amount)
                .ok_or_else(|| format!("{} was reimbursed {amount}, more than in the model", node.account))?;
        }
        Ok(())
    }

    fn after(
        &mut self,
        who: &AccountId,
        call: &Call,
        paid: (u128, u128, bool),
        early: Vec<(usize, u128)>,
        gas: u64,
    ) -> Checked<()> {
        let (attached, deposit, enqueued) = paid;
        let checks: ChecksView = self.vm.view(method::CHECKS, &json!({}));
        let left = usize::try_from(checks.waiting).map_err(|error| error.to_string())?;
        let finished = self.model.apply_until(left, checks.head.is_some());
        self.paid_all(early)?;
        // What comes of a call on a chain ends in a later block.
        self.model.advance_time(self.vm.now_ms());
        if let Some(line) = self.trace.last_mut() {
            line.push_str(&format!(" -> {} checks, {left} wait", checks.checks));
        }
        differ("operations that wait", &left, &self.model.waiting.len())?;
        differ("checks", &(checks.checks as usize), &self.model.pending_checks())?;
        if matches!(call, Call::Sever(_) | Call::Finalize(_)) {
            let waits = enqueued && left > 0;
            // All of it; what is not used comes back when the check is finished.
            let taken = if waits { attached } else { 0 };
            if waits && attached < deposit {
                return Err(format!("a check waits although only {attached} of {deposit} was attached"));
            }
            self.model.pool += taken;
            if taken > 0 {
                self.closers.insert(who.clone());
                self.model.note(State::CheckWaited);
            }
            self.model.credit(who, attached - taken);
        }
        if finished > 0 && matches!(call, Call::Check(_)) {
            self.model.note(State::CheckContinued);
        }
        self.rewards(who, gas, finished)?;
        self.books()?;
        if self.accepted.is_multiple_of(EVERYTHING_EVERY) || finished > 0 {
            self.everything()
        } else {
            self.touched(who, call)
        }
    }

    /// The account may still be owed part of what it attached for a check.
    pub fn is_closer(&self, account: &AccountId) -> bool {
        self.closers.contains(account)
    }

    /// Bonds are not released before the checks that were pending at the time.
    fn releases(&self, call: &Call) -> bool {
        let Call::Finalize(args) = call else { return false };
        let channel = self.model.channels.get(&args.channel);
        !self.model.waiting.is_empty()
            && channel.is_some_and(|channel| matches!(channel.status, ChannelStatus::Closed { .. }))
    }

    /// What the caller was paid for continuing checks and what closers got back: the contract
    /// says how much, the model that it came out of their deposits and nothing else.
    fn rewards(&mut self, who: &AccountId, gas: u64, finished: usize) -> Checked<()> {
        if self.model.pool == 0 {
            self.closers.clear();
            return Ok(());
        }
        let mut accounts = self.closers.clone();
        accounts.insert(who.clone());
        // It has the treasury too.
        accounts.remove(&self.model.treasury_account);
        let model = &self.model;
        let without =
            |account: &&AccountId| model.index_of(account).is_none() && !model.purses.contains_key(*account);
        let purseless = accounts.iter().filter(without).count();
        for account in accounts.clone() {
            let (now, known) = (self.vm.withdrawable(&account).0, self.model.owed(&account));
            let more = now
                .checked_sub(known)
                .ok_or_else(|| format!("{account} may withdraw {now}, {known} in the model"))?;
            if !self.closers.contains(&account)
                && more > REWARD_PER_TGAS * u128::from(gas / 1_000_000_000_000 + 1)
            {
                return Err(format!("{account} was paid {more} for {gas} gas"));
            }
            self.model.pool =
                self.model.pool.checked_sub(more).ok_or("more than deposits was paid for checks")?;
            self.model.credit(&account, more);
        }
        // Of each check under way or finished in this call: the reward, and the rest of the deposit.
        self.too_little_for_a_purse(2 * purseless * (finished + 1))?;
        let keeps = |channel: &crate::model::Channel| {
            matches!(channel.found, Found::Partition(_)) && channel.bonds().0 > 0
        };
        let kept = self.model.channels.values().any(keeps);
        if self.model.pending_checks() == 0 && self.model.waiting.is_empty() && !kept && self.model.pool > 0 {
            return Err(format!("{} of the deposits of checks was not returned", self.model.pool));
        }
        Ok(())
    }

    /// What an account without a node gets goes to the treasury if it does not pay for a purse, also
    /// when more that does follows in the same call.
    fn too_little_for_a_purse(&mut self, amounts: usize) -> Checked<()> {
        let most = PURSE_STORAGE * amounts as u128;
        if most == 0 {
            return Ok(());
        }
        // By the deposits that are left: the treasury may have got part of a slash as well.
        let more = self.model.books().storage.0.saturating_sub(self.vm.books().storage.0);
        if more > most || more > self.model.pool {
            return Err(format!("the treasury has {more} more, of which {most} may be from deposits"));
        }
        self.model.pool -= more;
        self.model.treasury += more;
        Ok(())
    }

    pub fn books(&mut self) -> Checked<()> {
        let (mut books, mut expected) = (self.vm.books(), self.model.books());
        // What was paid early still stands as stake in the model too.
        let early: u128 = self.early.values().sum();
        for part in [&mut expected.balance, &mut expected.withdrawable] {
            part.0 = part.0.checked_sub(early).ok_or("more was paid early than the contract ever held")?;
        }
        if books.owed() != Ok(books.balance)
            || books.surplus != Yocto::ZERO
            || books.balance.0 != self.vm.balance()
        {
            self.unconserved = true;
            return Err(format!("money is not conserved: {books:?}"));
        }
        // What is due may stand on either side until its owner's next call.
        for books in [&mut books, &mut expected] {
            books.withdrawable = Yocto(books.withdrawable.0 + books.stakes.0);
            books.stakes = Yocto::ZERO;
        }
        if books.balance != expected.balance {
            self.unconserved = true;
        }
        // A check under way has charged some nodes already and holds what it took in escrow, and
        // part of the slash is in the treasury; the sum and all other parts are as they should be.
        self.charging = false;
        if !self.model.waiting.is_empty()
            && (books.escrow, books.treasury) != (expected.escrow, expected.treasury)
        {
            self.charging = true;
            self.model.note(State::StoppedWhileCharging);
            for books in [&mut books, &mut expected] {
                books.withdrawable = Yocto(books.withdrawable.0 + books.escrow.0 + books.treasury.0);
                (books.escrow, books.treasury) = (Yocto::ZERO, Yocto::ZERO);
            }
        }
        if books != expected {
            // Whose money it is says more than a sum.
            for index in 0..self.model.nodes.len() {
                let account = self.model.nodes[index].account.clone();
                self.withdrawable(&account)?;
            }
        }
        differ("books", &books, &expected)
    }

    fn touched(&mut self, who: &AccountId, call: &Call) -> Checked<()> {
        let mut nodes: BTreeSet<usize> = self.model.index_of(who).into_iter().collect();
        let channel = match call {
            Call::Confirm(args) => Some(args.channel),
            Call::Cancel(args) | Call::TopUp(args) | Call::Forget(args) => Some(args.channel),
            Call::RequestClose(args) | Call::ConfirmClose(args) => Some(args.channel),
            Call::CloseSigned(args) => Some(args.close.channel),
            Call::SubmitState(args) => Some(args.state.statement.channel),
            Call::Sever(args) => Some(args.order.statement.channel),
            Call::Finalize(args) => Some(args.channel),
            Call::Draw(args) => Some(args.draw.channel),
            Call::ReplaceTerms(args) => Some(args.act.channel),
            Call::Propose(_) => Some(por_types::ChannelId(self.model.proposed - 1)),
            Call::SetParams(_)
            | Call::SetOwner(_)
            | Call::SetTreasury(_)
            | Call::AnnounceUpgrade(_)
            | Call::CancelUpgrade => return self.config(),
            _ => None,
        };
        if let Some(id) = channel {
            let view: Option<ChannelView> = self.vm.view(method::CHANNEL, &json!({ "channel": id }));
            differ("channel", &view, &self.model.channel_view(id))?;
            nodes.extend(self.model.channels.get(&id).map(|channel| channel.ends).into_iter().flatten());
        }
        nodes.retain(|node| !self.model.nodes[*node].gone);
        for node in nodes {
            let account = self.model.nodes[node].account.clone();
            let view: Option<NodeView> = self.vm.view(method::NODE, &json!({ "account": account }));
            let view = view.ok_or_else(|| format!("{account} has no node"))?;
            self.same_node(&view, node)?;
            self.withdrawable(&account)?;
        }
        differ("received", &self.vm.received(who), &self.model.received.get(who).copied())
    }

    fn same_node(&self, view: &NodeView, node: usize) -> Checked<()> {
        let mut expected = self.model.node_view(node);
        // A check under way may have charged and detached some nodes already, never the contrary.
        if self.model.begun && view.stake <= expected.stake && view.active_stake <= expected.active_stake {
            (expected.stake, expected.active_stake) = (view.stake, view.active_stake);
            expected.unstaking = expected.unstaking.min(view.unstaking);
            if !view.attached {
                (expected.attached, expected.attached_since_ms) = (false, None);
            }
        }
        differ("node", view, &expected)
    }

    fn withdrawable(&mut self, account: &AccountId) -> Checked<()> {
        if self.charging && *account == self.model.treasury_account {
            return Ok(());
        }
        let contract = self.vm.withdrawable(account).0;
        differ(&format!("withdrawable by {account}"), &contract, &self.model.owed(account))
    }

    fn config(&mut self) -> Checked<()> {
        let config = self.vm.config();
        let model = &self.model;
        differ("parameters", &config.params, &model.params)?;
        differ("next parameters", &config.next_params, &model.next_params)?;
        differ("next code", &config.next_code, &model.next_code)?;
        differ("owner", &config.owner, &model.owner)?;
        differ("treasury", &config.treasury, &model.treasury_account)?;
        differ("anchor", &config.anchor, &model.anchor)?;
        differ("nodes", &config.nodes, &u64::from(model.indices))?;
        differ("channels", &config.channels, &model.proposed)
    }

    /// Every record that the contract has.
    pub fn everything(&mut self) -> Checked<()> {
        self.model.advance_time(self.vm.now_ms());
        self.config()?;
        let nodes: Vec<NodeView> = self.vm.view(method::NODES, &json!({ "from": 0, "limit": 100 }));
        let live = (0..self.model.nodes.len()).filter(|node| !self.model.nodes[*node].gone);
        let mut expected: Vec<usize> = live.collect();
        expected.sort_by_key(|node| self.model.nodes[*node].index);
        for (view, node) in nodes.iter().zip(&expected) {
            self.same_node(view, *node)?;
        }
        differ("number of nodes", &nodes.len(), &expected.len())?;
        let mut channels: Vec<ChannelView> = Vec::new();
        for from in (0..self.model.proposed).step_by(100) {
            let page: Vec<ChannelView> =
                self.vm.view(method::CHANNELS, &json!({ "from": from, "limit": 100 }));
            channels.extend(page);
        }
        let shown = self.model.channels.keys().filter(|id| self.model.channel_view(**id).is_some());
        let ids: Vec<_> = shown.copied().collect();
        differ("channels", &channels.iter().map(|view| view.channel).collect::<Vec<_>>(), &ids)?;
        for view in &channels {
            differ("channel", &Some(view), &self.model.channel_view(view.channel).as_ref())?;
        }
        let purses = self.model.purses.keys().cloned();
        let live = self.model.nodes.iter().filter(|node| !node.gone).map(|node| node.account.clone());
        let accounts: BTreeSet<AccountId> =
            purses.chain(live).chain([self.model.treasury_account.clone()]).collect();
        for account in &accounts {
            self.withdrawable(account)?;
        }
        self.attachments()?;
        self.books()
    }

    fn attachments(&mut self) -> Checked<()> {
        for index in 0..self.model.nodes.len() {
            let node = self.model.nodes[index].clone();
            if node.gone || self.model.begun {
                continue;
            }
            let from_ms = self.model.now_ms.saturating_sub(5_000 + 777 * index as u64);
            let args = json!({ "account": node.account, "from_ms": from_ms, "to_ms": self.model.now_ms });
            let contract: Option<DowntimeView> = self.vm.view(method::DOWNTIME, &args);
            let expected = self.model.downtime(index, from_ms, self.model.now_ms);
            differ(&format!("downtime of {}", node.account), &contract, &Some(expected))?;
        }
        Ok(())
    }
}

/// Accepted calls between comparisons of everything.
const EVERYTHING_EVERY: u64 = 4;

fn is_about_gas(message: &str) -> bool {
    message.contains("gas")
}

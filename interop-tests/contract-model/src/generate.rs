//! Random sequences of calls, most of them valid.

mod departures;

use por_types::interface::*;
use por_types::{
    AccountId, ChannelId, ChannelState, CooperativeClose, Draw, Hash, Network, NewTerms, NodeSecret,
    RegistrationProof, SeverOrder, SeverReason, Side, Signature, Statement, Terms, Totals, Yocto,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::compare::{Checked, Pair};
use crate::host::Host;
use crate::model::{Call, Model};
use crate::vm::{Vm, account, network, secret, terms};

/// Calls after the network is set up.
const STEPS: usize = 60;

/// One sequence under way.
pub struct Sequence<H = Vm> {
    pub pair: Pair<H>,
    rng: StdRng,
    names: Vec<AccountId>,
    secrets: Vec<NodeSecret>,
    /// Amounts are small multiples of this.
    unit: u128,
    /// How often a call gets so little gas that a check may not finish, percent.
    stingy: u32,
    hostile: u32,
    /// Accounts are found by the node that they have now. Up to then by their order, of which seeds
    /// that once differed depend.
    exact: bool,
}

fn new_args(rng: &mut StdRng, unit: u128) -> NewArgs {
    let params = Params {
        late_fee: Yocto(1),
        sever_penalty: Yocto(2 * unit * rng.random_range(1..20)),
        challenge_ms: rng.random_range(500..3_000),
        notice_ms: rng.random_range(50..500),
        min_stake: Yocto(unit * rng.random_range(0..10)),
        activation_ms: rng.random_range(1..1_500),
        reimbursement_ms: rng.random_range(1_000..8_000),
        slash_bps: rng.random_range(0..5_000),
    };
    let anchor = rng.random_bool(0.9).then(|| account("n0.test"));
    NewArgs {
        chain_id: network().chain_id,
        owner: account("owner.test"),
        treasury: account("treasury.test"),
        params,
        anchor,
        test: true,
    }
}

/// Most accounts of a sequence: `n0.test` and so on. A chain has to have them all.
pub const MAX_NAMES: usize = 64;

impl<H: Host> Sequence<H> {
    /// The sequence of a seed, for a contract that is deployed and not initialised. On a chain it
    /// differs from run to run, as its calls depend on what happened when.
    pub fn new(host: H, seed: u64) -> Sequence<H> {
        let mut rng = StdRng::seed_from_u64(seed);
        let unit = if rng.random() { 1 } else { rng.random_range(1..1_000) * Yocto::ONE_NEAR.0 / 999 };
        let count = rng.random_range(6..=12);
        let names: Vec<AccountId> = (0..count).map(|index| account(&format!("n{index}.test"))).collect();
        let secrets = names.iter().map(|name| secret(name.as_str())).collect();
        let pair = Pair::new(host, &new_args(&mut rng, unit));
        let stingy = [0, 50, 90][rng.random_range(0..3)];
        let hostile = rng.random_range(2..15);
        Sequence { pair, rng, names, secrets, unit, stingy, hostile, exact: false }
    }

    /// Runs all of it. An error says what differs.
    pub fn run(&mut self) -> Checked<()> {
        self.set_up()?;
        for _ in 0..STEPS {
            let passed = if self.chance(50) { self.rng.random_range(0..40) } else { 0 };
            self.wait_until(self.now_ms() + passed);
            self.step()?;
        }
        // Last, so that what a seed stands for has not changed up to here.
        if self.chance(25) {
            self.departures()?;
        }
        if self.chance(25) {
            self.successions()?;
        }
        self.wind_up()
    }

    fn now_ms(&self) -> u64 {
        self.pair.vm.now_ms()
    }

    fn wait_until(&mut self, time_ms: u64) {
        self.pair.vm.wait_until(time_ms);
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.rng.random_range(0..100) < percent
    }

    fn model(&self) -> &Model {
        &self.pair.model
    }

    fn amount(&mut self) -> u128 {
        let units: u128 = self.rng.random_range(0..40);
        let odd = if self.unit > 1 { self.rng.random_range(0..3) } else { 0 };
        units * self.unit + odd
    }

    fn call(&mut self, who: &AccountId, call: &Call, attached: u128) -> Checked<bool> {
        let closes = matches!(call, Call::Sever(_) | Call::Finalize(_) | Call::Check(_));
        let percent = if closes { self.stingy } else { 3 };
        let tgas = if self.chance(percent) { self.rng.random_range(5..26) } else { 300 };
        let attached = if self.chance(1) { attached.saturating_sub(1) } else { attached };
        let stray = self.chance(1);
        self.pair.call(who, call, if stray { attached + 1 } else { attached }, tgas)
    }

    /// Three components or more, chains with a few more edges; pings from the anchor outwards.
    fn set_up(&mut self) -> Checked<()> {
        for index in 0..self.names.len() {
            self.register(index)?;
        }
        let parts = self.rng.random_range(3..5);
        for index in parts..self.names.len() {
            self.open(index, index - parts)?;
            if index >= 2 * parts && self.chance(40) {
                self.open(index, index - 2 * parts)?;
            }
        }
        for index in parts..self.names.len() {
            if self.chance(85) {
                self.ping(index, index - parts)?;
            }
        }
        Ok(())
    }

    fn register(&mut self, index: usize) -> Checked<bool> {
        let who = self.names[index].clone();
        let signer = self.signer(index);
        let network = self.network();
        let statement = RegistrationProof { account: who.clone(), node_key: self.secrets[index].public() };
        let proof = self.secrets[signer].sign(&network, statement.clone()).signature;
        let stake = self.stake_to_start();
        let attached = self.model().register_storage + stake;
        self.call(&who, &Call::Register(RegisterArgs { node_key: statement.node_key, proof }), attached)
    }

    fn stake_to_start(&mut self) -> u128 {
        let model = self.model();
        let enough = model.params.min_stake.0 + model.params.sever_penalty.0;
        match self.rng.random_range(0..4) {
            0 => enough,
            1 => enough / 2 + self.amount(),
            _ => enough + self.amount(),
        }
    }

    /// Almost always who should sign.
    fn signer(&mut self, index: usize) -> usize {
        let hostile = self.hostile;
        if self.chance(hostile) { self.rng.random_range(0..self.names.len()) } else { index }
    }

    fn network(&mut self) -> Network {
        match self.rng.random_range(0..100) {
            0 => Network { chain_id: "other-chain".into(), ..network() },
            1 => Network { contract: account("other.test"), ..network() },
            _ => network(),
        }
    }

    fn open(&mut self, a: usize, b: usize) -> Checked<bool> {
        let id = ChannelId(self.model().proposed);
        Ok(self.propose(a, b)? && (self.chance(10) || self.confirm(id)?))
    }

    fn propose(&mut self, a: usize, b: usize) -> Checked<bool> {
        let deposit = self.amount();
        let (from, to) = (self.names[a].clone(), self.names[b].clone());
        let bond = self.model().params.sever_penalty.0 / 2;
        let args = ProposeChannelArgs { counterparty: to, terms: terms(), deposit: Yocto(deposit) };
        let cost = deposit + bond + self.model().channel_storage;
        self.call(&from, &Call::Propose(args), cost)
    }

    fn confirm(&mut self, id: ChannelId) -> Checked<bool> {
        let (by, bond) = match self.model().channels.get(&id) {
            Some(channel) => (self.name_of(channel.ends[1]), channel.bond),
            None => (0, 0),
        };
        let deposit = self.amount();
        let by = self.signer(by);
        let hostile = self.hostile;
        let fee = if self.chance(hostile / 2) { 11 } else { 10 };
        let terms = Terms { byte_fee: Yocto(fee), ..terms() };
        let args = ConfirmChannelArgs { channel: id, terms, deposit: Yocto(deposit) };
        let who = self.names[by].clone();
        self.call(&who, &Call::Confirm(args), deposit + bond)
    }

    fn ping(&mut self, node: usize, through: usize) -> Checked<bool> {
        let (who, through) = (self.names[node].clone(), self.names[through].clone());
        self.call(&who, &Call::Ping(PingArgs { through }), 0)
    }

    fn node(&mut self) -> usize {
        self.rng.random_range(0..self.names.len())
    }

    /// Almost always a channel for which this holds, if there is one.
    fn channel(&mut self, fits: impl Fn(&ChannelStatus) -> bool) -> ChannelId {
        let fitting: Vec<ChannelId> = self
            .model()
            .channels
            .iter()
            .filter(|(_, channel)| fits(&channel.status))
            .map(|(id, _)| *id)
            .collect();
        if fitting.is_empty() || self.chance(7) {
            return ChannelId(self.rng.random_range(0..=self.model().proposed));
        }
        fitting[self.rng.random_range(0..fitting.len())]
    }

    fn ends(&self, id: ChannelId) -> [usize; 2] {
        let ends = self.model().channels.get(&id).map_or([0, 1], |channel| channel.ends);
        ends.map(|end| self.name_of(end))
    }

    /// Who registered a node. A node that comes back has a further index.
    fn name_of(&self, node: usize) -> usize {
        if !self.exact && node < self.names.len() {
            return node;
        }
        self.name_of_node(node).unwrap_or_default()
    }

    fn name_of_node(&self, node: usize) -> Option<usize> {
        let account = &self.model().nodes[node].account;
        self.names.iter().position(|name| name == account)
    }

    /// Totals that grow from what is proven, mostly within the deposits.
    fn totals(&mut self, id: ChannelId) -> Totals {
        let (proven, pot) =
            self.model().channels.get(&id).map_or(([0, 0], 0), |channel| (channel.totals, channel.pot()));
        let hostile = self.hostile;
        let raise = match self.rng.random_range(0..4) {
            0 => [0, 0],
            1 => [self.rng.random_range(0..=pot / 3), 0],
            2 => [0, self.rng.random_range(0..=pot / 3)],
            _ => [pot / 4, pot / 5],
        };
        let mut totals = [proven[0].saturating_add(raise[0]), proven[1].saturating_add(raise[1])];
        if self.chance(hostile) {
            let side = self.rng.random_range(0..2);
            totals[side] = [0, u128::MAX, totals[side] / 2, pot + 1][self.rng.random_range(0..4)];
        }
        Totals { sent_a: Yocto(totals[0]), sent_b: Yocto(totals[1]) }
    }

    fn step(&mut self) -> Checked<bool> {
        match self.rng.random_range(0..100) {
            0..8 => {
                let (a, b) = (self.node(), self.node());
                self.open(a, b)
            }
            8..10 => {
                let id = self.channel(|status| *status == ChannelStatus::Proposed);
                self.confirm(id)
            }
            10..16 => self.stake_or_unstake(),
            16..19 => self.on_channel(),
            19..24 => self.close_by_request(),
            24..28 => self.two_signatures(),
            28..32 => self.evidence(),
            32..44 => self.sever(),
            44..58 => self.finalize(),
            58..61 => self.withdraw(),
            61..74 => self.ping_somebody(),
            74..84 => self.continue_checks(),
            84..86 => self.govern(),
            86..88 => self.come_and_go(),
            _ => {
                self.jump();
                self.finalize()
            }
        }
    }

    fn stake_or_unstake(&mut self) -> Checked<bool> {
        let node = self.node();
        let who = self.names[node].clone();
        let amount = self.amount();
        if self.rng.random() {
            return self.call(&who, &Call::Stake, amount);
        }
        let all = self.model().index_of(&who).map_or(0, |node| self.model().stake_seen(node));
        let locked = self.model().index_of(&who).map_or(0, |node| self.model().locked(node));
        let amount = match self.rng.random_range(0..4) {
            0 => all,
            1 => all.saturating_sub(locked.max(self.model().params.min_stake.0)),
            _ => amount,
        };
        self.call(&who, &Call::Unstake(UnstakeArgs { amount: Yocto(amount) }), 0)
    }

    fn on_channel(&mut self) -> Checked<bool> {
        let kind = self.rng.random_range(0..3);
        let id = self.channel(|status| match kind {
            0 => *status == ChannelStatus::Proposed,
            1 => *status == ChannelStatus::Open,
            _ => matches!(status, ChannelStatus::Closed { .. } | ChannelStatus::Cancelled),
        });
        let end = self.rng.random_range(0..2);
        let end = self.ends(id)[if kind == 0 { 0 } else { end }];
        let by = self.signer(end);
        let who = self.names[by].clone();
        let args = ChannelArgs { channel: id };
        match kind {
            0 => self.call(&who, &Call::Cancel(args), 0),
            1 => {
                let amount = self.amount();
                self.call(&who, &Call::TopUp(args), amount)
            }
            _ => self.call(&who, &Call::Forget(args), 0),
        }
    }

    fn close_by_request(&mut self) -> Checked<bool> {
        let id = self.channel(|status| {
            matches!(status, ChannelStatus::Open | ChannelStatus::Closing { confirmed: false, .. })
        });
        let mut ends = self.ends(id);
        if self.rng.random() {
            ends.reverse();
        }
        let totals = self.totals(id);
        let first = self.signer(ends[0]);
        let who = self.names[first].clone();
        let args = CloseArgs { channel: id, totals };
        let asked = self.call(&who, &Call::RequestClose(args), 0)?;
        if self.chance(20) {
            return Ok(asked);
        }
        let other = self.totals(id);
        let hostile = self.hostile;
        let totals = if self.chance(hostile) { other } else { totals };
        let second = self.signer(ends[1]);
        let who = self.names[second].clone();
        self.call(&who, &Call::ConfirmClose(CloseArgs { channel: id, totals }), 0)
    }

    fn sign<T: Statement + Clone>(&mut self, by: usize, statement: &T) -> Signature {
        let by = self.signer(by);
        let network = self.network();
        self.secrets[by].sign(&network, statement.clone()).signature
    }

    fn two_signatures(&mut self) -> Checked<bool> {
        let channel = self.channel(|status| {
            matches!(status, ChannelStatus::Open | ChannelStatus::Closing { confirmed: false, .. })
        });
        let [a, b] = self.ends(channel);
        let totals = self.totals(channel);
        let done = self.model().channels.get(&channel).map_or(0, |channel| channel.sequence);
        let hostile = self.hostile;
        let sequence = if self.chance(hostile) { self.rng.random_range(0..3) } else { done + 1 };
        let (now_ms, delay_ms) = (self.now_ms(), self.pair.vm.delay_ms());
        let expires_ms =
            if self.chance(hostile) { now_ms - 1 } else { now_ms + delay_ms + self.rng.random_range(0..50) };
        let node = self.node();
        let who = self.names[node].clone();
        match self.rng.random_range(0..3) {
            0 => {
                let close = CooperativeClose { channel, sequence, expires_ms, totals };
                let (signature_a, signature_b) = (self.sign(a, &close), self.sign(b, &close));
                self.call(&who, &Call::CloseSigned(CloseSignedArgs { close, signature_a, signature_b }), 0)
            }
            1 => {
                let (draw_a, draw_b) = (Yocto(self.amount() / 2), Yocto(self.amount() / 4));
                let draw = Draw { channel, sequence, expires_ms, totals, draw_a, draw_b };
                let (signature_a, signature_b) = (self.sign(a, &draw), self.sign(b, &draw));
                self.call(&who, &Call::Draw(DrawArgs { draw, signature_a, signature_b }), 0)
            }
            _ => {
                let rtt_ms = self.rng.random_range(0..9);
                let terms = Terms { rtt_ms, ..terms() };
                let act = NewTerms { channel, sequence, expires_ms, totals, terms };
                let (signature_a, signature_b) = (self.sign(a, &act), self.sign(b, &act));
                let args = ReplaceTermsArgs { act, signature_a, signature_b };
                self.call(&who, &Call::ReplaceTerms(args), 0)
            }
        }
    }

    fn evidence(&mut self) -> Checked<bool> {
        let channel = self.channel(|status| {
            matches!(status, ChannelStatus::Severed { .. } | ChannelStatus::Closing { confirmed: true, .. })
        });
        let (signer, end) = if self.rng.random() { (Side::A, 0) } else { (Side::B, 1) };
        let mut totals = self.totals(channel);
        if self.chance(50) {
            totals.set(signer, Yocto(totals.sent_by(signer).0.saturating_add(1 + self.unit)));
        }
        let statement = ChannelState { channel, totals, items: Hash([0; 32]) };
        let end = self.ends(channel)[end];
        let signature = self.sign(end, &statement);
        let args = SubmitStateArgs { state: por_types::Signed { statement, signature }, signer };
        let node = self.node();
        let who = self.names[node].clone();
        self.call(&who, &Call::SubmitState(args), 0)
    }

    fn witness(&mut self, id: ChannelId) -> Option<Witness> {
        let [a, b] = self.ends(id);
        let through = self.node();
        let end = |name: usize| {
            let node = self.model().index_of(&self.names[name]).filter(|_| self.exact);
            node.map_or(u32::try_from(name).unwrap_or_default(), |node| self.model().nodes[node].index)
        };
        let [a, b, through] = [a, b, through].map(end);
        match self.rng.random_range(0..10) {
            0 => Some(Witness { path: vec![a, b], closed: None }),
            1 => Some(Witness { path: vec![a, through, b], closed: None }),
            2 => Some(Witness { path: Vec::new(), closed: Some(Side::A) }),
            3 => Some(Witness { path: Vec::new(), closed: Some(Side::B) }),
            4 => Some(Witness { path: vec![b, 4_000_000_000, a], closed: Some(Side::A) }),
            _ => None,
        }
    }

    fn prepaid(&mut self) -> u128 {
        match self.rng.random_range(0..12) {
            0 => 0,
            1 => self.pair.check_deposit() - 1,
            2 => self.pair.check_deposit() + self.rng.random_range(0..1_000),
            _ => self.pair.check_deposit(),
        }
    }

    /// Nodes close; now and then somebody without a node.
    fn anybody(&mut self) -> AccountId {
        let node = self.node();
        self.names[node].clone()
    }

    fn sever(&mut self) -> Checked<bool> {
        let late = self.chance(25);
        let channel = self.channel(|status| match status {
            ChannelStatus::Closed { severed: false, bonds_until_ms: Some(_), .. } => late,
            ChannelStatus::Open | ChannelStatus::Closing { .. } => !late,
            _ => false,
        });
        let end = self.rng.random_range(0..2);
        let end = self.ends(channel)[end];
        let claimed = self.signer(end);
        let signer = self.secrets[claimed].public();
        let statement = SeverOrder { channel, signer, reason: SeverReason::Operator, request: None };
        let signature = self.sign(end, &statement);
        let order = por_types::Signed { statement, signature };
        let (witness, who, attached) = (self.witness(channel), self.anybody(), self.prepaid());
        self.call(&who, &Call::Sever(SeverArgs { order, witness }), attached)
    }

    fn finalize(&mut self) -> Checked<bool> {
        let now_ms = self.now_ms();
        let channel = self.channel(|status| match status {
            ChannelStatus::Closing { confirmed: true, closes_ms, .. } => *closes_ms <= now_ms,
            ChannelStatus::Severed { settles_ms, .. } => *settles_ms <= now_ms,
            ChannelStatus::Closed { bonds_until_ms: Some(until_ms), .. } => *until_ms <= now_ms,
            _ => false,
        });
        let (witness, who, attached) = (self.witness(channel), self.anybody(), self.prepaid());
        self.call(&who, &Call::Finalize(FinalizeArgs { channel, witness }), attached)
    }

    fn withdraw(&mut self) -> Checked<bool> {
        // How much of a slash has arrived while its check is under way is not the model's business.
        let treasury = self.chance(15) && !self.model().begun;
        let who = if treasury { account("treasury.test") } else { self.anybody() };
        let owed = self.model().owed(&who);
        let amount = match self.rng.random_range(0..4) {
            0 => None,
            1 => Some(Yocto(owed)),
            2 => Some(Yocto(owed / 2)),
            _ => Some(Yocto(self.amount())),
        };
        self.call(&who, &Call::Withdraw(WithdrawArgs { amount }), 0)
    }

    fn ping_somebody(&mut self) -> Checked<bool> {
        let edges: Vec<[usize; 2]> = self.model().edges.values().copied().collect();
        if edges.is_empty() || self.chance(10) {
            let (node, through) = (self.node(), self.node());
            return self.ping(node, through);
        }
        let [a, b] = edges[self.rng.random_range(0..edges.len())];
        let attached = |node: usize| self.model().nodes[node].attached_ms.is_some();
        let (node, through) = if attached(a) { (b, a) } else { (a, b) };
        let account = |node: usize| self.model().nodes[node].account.clone();
        let (who, through) = (account(node), account(through));
        self.call(&who, &Call::Ping(PingArgs { through }), 0)
    }

    /// By a node: what an account without one gets for it may be too little for a purse.
    fn continue_checks(&mut self) -> Checked<bool> {
        let who = self.anybody();
        let who =
            if self.model().index_of(&who).is_some() { who } else { self.model().nodes[0].account.clone() };
        let witness = self.witness(ChannelId(0));
        self.call(&who, &Call::Check(CheckArgs { witness }), 0)
    }

    fn govern(&mut self) -> Checked<bool> {
        let owner = self.model().owner.clone();
        let who = if self.chance(30) { self.anybody() } else { owner };
        let unit = self.unit;
        let call = match self.rng.random_range(0..8) {
            0 => Call::SetOwner(AccountArgs { account: account("owner.test") }),
            1 => Call::SetTreasury(AccountArgs { account: account("treasury.test") }),
            2 => Call::AnnounceUpgrade(AnnounceUpgradeArgs { code_hash: Hash([7; 32]) }),
            3 => Call::CancelUpgrade,
            _ => {
                let mut params = new_args(&mut self.rng, unit).params;
                if self.chance(10) {
                    params.sever_penalty = Yocto(3);
                }
                Call::SetParams(SetParamsArgs { params })
            }
        };
        self.call(&who, &call, 0)
    }

    fn come_and_go(&mut self) -> Checked<bool> {
        let node = self.node();
        if self.rng.random() {
            return self.register(node);
        }
        let who = self.names[node].clone();
        self.call(&who, &Call::Unregister, 0)
    }

    /// To just before, at or just after the end of some window.
    fn jump(&mut self) {
        let now_ms = self.now_ms();
        let model = self.model();
        let mut times: Vec<u64> = model.penalties.iter().map(|penalty| penalty.until_ms).collect();
        for channel in model.channels.values() {
            match channel.status {
                ChannelStatus::Closing { closes_ms, .. } => times.push(closes_ms),
                ChannelStatus::Severed { settles_ms, .. } => times.push(settles_ms),
                ChannelStatus::Closed { bonds_until_ms: Some(until_ms), .. } => times.push(until_ms),
                _ => {}
            }
        }
        for node in &model.nodes {
            times.extend(node.maturing.iter().chain(&node.withdrawing).map(|due| due.at_ms));
            times.extend(node.slashed_ms.map(|at_ms| at_ms + model.params.reimbursement_ms));
        }
        times.extend(model.next_params.as_ref().map(|next| next.from_ms));
        times.retain(|time| *time > now_ms + 1);
        times.sort_unstable();
        times.truncate(6);
        if !times.is_empty() {
            let time = times[self.rng.random_range(0..times.len())];
            let near = time + self.rng.random_range(0..3) - 1;
            self.wait_until(near);
        }
    }

    /// Everything that waits is applied, and compared once more.
    fn wind_up(&mut self) -> Checked<()> {
        let who = self.names[0].clone();
        for _ in 0..100 {
            if self.model().waiting.is_empty() {
                break;
            }
            self.pair.call(&who, &Call::Check(CheckArgs::default()), 0, 300)?;
        }
        if !self.model().waiting.is_empty() {
            return Err("checks do not come to an end".to_owned());
        }
        self.pair.everything()
    }
}

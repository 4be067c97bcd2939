//! Names of others: asked of the host's resolvers, for all clients together.
//!
//! # Theory
//!
//! Pure: queries, replies and time come in, [`Action`]s come out. Whoever executes them opens a new
//! host socket for each [`Exchange`], so that each has a port of its own, chosen by the host's kernel.
//!
//! **One question, one asking.** Who asks what is being asked already waits with the others. That is
//! also what ends a loop: should a resolver of the host ask us in turn, its question is the one that
//! waits, and nothing is sent again.
//!
//! **Racing.** The first resolver ([`Servers::order`]) is asked; when it has not answered within its
//! patience, the next one is asked as well, and so on, the patience doubling with each round. The first
//! good answer (a name, or that there is none) counts; those that were silent until then are asked last
//! for a while. An answer that is a failure makes the next one be asked at once; when all have failed,
//! the last failure is the answer.
//!
//! **Forgery** (RFC 5452). An answer counts if it comes from whom was asked, to the socket that asked,
//! with the random number and the question, each letter in its random case. A resolver that changes the
//! case is asked again in plain case, and so for a while. What fails is ignored: the true answer may
//! still come.
//!
//! **Size** (RFC 6891). Resolvers are told a size that no path cuts; a truncated answer is asked for
//! again by TCP. Each client is given what its own size takes, and otherwise the truncation bit, so
//! that it comes back by TCP and finds the answer in the cache.
//!
//! **Floods.** The queries of a port that wait are counted, as are its entries of the cache.

mod pending;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hasher};

use hashbrown::HashMap;

use self::pending::{Asked, Pending, Waiter};
use super::cache::{Cache, Key};
use super::message::{self, Asker, Message, Stored};
use super::servers::Servers;
use super::{EDNS_SIZE, PORT};
use crate::base::hash::Seed;
use crate::base::ids::PortId;
use crate::base::limits::{
    NAMES_ASKED_MAX, NAMES_ATTEMPTS_MAX, NAMES_FAILURE_KEPT, NAMES_NEGATIVE_TTL_MAX,
    NAMES_PATIENCE, NAMES_TTL_MAX, NAMES_WAITING_ALIKE_MAX, NAMES_WAITING_PER_PORT_MAX,
};
use crate::base::slab::Slab;
use crate::base::time::{Span, Time};
use crate::packet::DropReason;
use crate::stage::dns::Client;
use crate::wire::addr::Addr;

/// One query to one resolver, on a socket of its own.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Exchange {
    /// Number of the slot.
    pub slot: u32,
    /// How often the slot has been used before.
    pub epoch: u32,
    /// By TCP.
    pub stream: bool,
}

/// What is to be done.
#[derive(Clone, Debug)]
pub enum Action {
    /// Send a message to a resolver from a new socket.
    Ask {
        /// What the socket is called.
        exchange: Exchange,
        /// Whom to ask, at [`PORT`].
        server: Addr,
        /// The message, without the length that goes before it on a stream.
        message: Vec<u8>,
    },
    /// Close the socket.
    Close(Exchange),
    /// Give a client its answer.
    Answer(Client, Vec<u8>),
}

/// What happened, in numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ResolverStats {
    /// Queries to resolvers of the host.
    pub asked: u64,
    /// Queries answered from the cache.
    pub cached: u64,
    /// Queries that waited with others for one answer.
    pub joined: u64,
    /// Messages that were no answer to what was asked.
    pub ignored: u64,
    /// Queries that nobody answered.
    pub failed: u64,
    /// Queries refused for want of room.
    pub limits_met: u64,
}

/// The resolver.
#[derive(Debug)]
pub struct Resolver {
    secret: u64,
    drawn: u64,
    servers: Servers,
    cache: Cache,
    pending: Slab<Pending>,
    by_key: HashMap<Key, u32>,
    asked: Slab<Asked>,
    epoch: u32,
    /// When something is due, by number of the pending question.
    timers: BTreeSet<(Time, u32)>,
    waiting: HashMap<PortId, u32>,
    /// How often the resolvers have changed: an answer of the former ones is not kept.
    generation: u32,
    stats: ResolverStats,
}

impl Resolver {
    /// Knows nobody to ask. `seed` must be random and secret in a daemon.
    pub fn new(seed: Seed) -> Self {
        Self {
            secret: seed.hash([0x6e61_6d65]),
            drawn: 0,
            servers: Servers::default(),
            cache: Cache::default(),
            pending: Slab::default(),
            by_key: HashMap::new(),
            asked: Slab::default(),
            epoch: 0,
            timers: BTreeSet::new(),
            waiting: HashMap::new(),
            generation: 0,
            stats: ResolverStats::default(),
        }
    }

    /// Whom to ask from now on, in order. What was kept may be wrong by now and is forgotten; what is
    /// being asked is asked of the new ones when its time comes.
    pub fn set_servers(&mut self, servers: &[Addr]) {
        self.servers.set(servers);
        self.cache = Cache::default();
        self.generation = self.generation.wrapping_add(1);
    }

    /// Whether there is anybody to ask.
    pub fn can_ask(&self) -> bool {
        self.servers.len() > 0
    }

    /// What happened so far.
    pub fn stats(&self) -> ResolverStats {
        self.stats
    }

    /// Number of questions being asked, of answers kept, and bytes of these.
    pub fn sizes(&self) -> (usize, usize, usize) {
        let (answers, bytes) = self.cache.size();
        (self.pending.len(), answers, bytes)
    }

    /// A number that nobody outside can guess: SipHash of a secret and a counter.
    fn draw(&mut self) -> u64 {
        self.drawn += 1;
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(self.secret);
        hasher.write_u64(self.drawn);
        hasher.finish()
    }

    /// Takes in a client's query. Its answer, now or later, is an [`Action::Answer`].
    ///
    /// # Errors
    /// Why there will be none.
    pub fn ask(
        &mut self,
        now: Time,
        client: Client,
        query: &[u8],
        out: &mut Vec<Action>,
    ) -> Result<(), DropReason> {
        let message = Message::new(query).ok_or(DropReason::Malformed)?;
        let records = message.records().ok_or(DropReason::Malformed)?;
        if message.is_response() {
            return Err(DropReason::Malformed);
        }
        let edns = message.edns(&records);
        let waiter = Waiter::new(client, &message, edns);
        if let Some(code) = refusal(&message) {
            let refused = Stored::empty(message.question(), message.flags(), code);
            out.push(Action::Answer(client, refused.answer(&waiter.asker(), 0)));
            return Ok(());
        }
        let key = key(&message, edns.is_some_and(|edns| edns.dnssec));
        if let Some((stored, age)) = self.cache.get(now, &key) {
            out.push(Action::Answer(client, stored.answer(&waiter.asker(), age)));
            self.stats.cached += 1;
            return Ok(());
        }
        self.wait(now, key, waiter, &message, out).inspect_err(|_| self.stats.limits_met += 1)
    }

    fn wait(
        &mut self,
        now: Time,
        key: Key,
        waiter: Waiter,
        message: &Message<'_>,
        out: &mut Vec<Action>,
    ) -> Result<(), DropReason> {
        let port = waiter.client.port;
        let share = self.waiting.get(&port).copied().unwrap_or(0);
        if share >= NAMES_WAITING_PER_PORT_MAX {
            return Err(DropReason::NameLimit);
        }
        if let Some(pending) = self.by_key.get(&key).and_then(|at| self.pending.get_mut(*at)) {
            if pending.waiters.iter().any(|known| known.is_same(&waiter)) {
                return Ok(()); // Asked again in impatience.
            }
            if pending.waiters.len() >= NAMES_WAITING_ALIKE_MAX {
                return Err(DropReason::NameLimit);
            }
            pending.waiters.push(waiter);
            self.stats.joined += 1;
        } else {
            if self.pending.len() >= NAMES_ASKED_MAX {
                return Err(DropReason::NameLimit);
            }
            let order = self.servers.order(now);
            let mut new = Pending::new(key.clone(), message, waiter, order, now + NAMES_PATIENCE);
            new.generation = self.generation;
            let at = self.pending.insert(new);
            self.by_key.insert(key, at);
            self.timers.insert((now + NAMES_PATIENCE, at));
            self.next_attempt(now, at, out);
        }
        *self.waiting.entry(port).or_default() += 1;
        Ok(())
    }

    /// Asks the next resolver, and says when the one after it is due.
    fn next_attempt(&mut self, now: Time, at: u32, out: &mut Vec<Action>) {
        let Some(pending) = self.pending.get_mut(at) else { return };
        let servers = pending.order.len();
        let Some(&server) = pending.order.get(usize::from(pending.attempts) % servers.max(1))
        else {
            return self.fail(now, at, out);
        };
        let round = usize::from(pending.attempts) / servers;
        pending.attempts += 1;
        let patience = Span(self.servers.patience(server).0 << round.min(4));
        let more = pending.attempts < NAMES_ATTEMPTS_MAX;
        let due = if more { now + patience } else { pending.deadline };
        self.due(at, due);
        self.send(now, at, server, false, out);
    }

    /// Sets when a question is looked at again.
    fn due(&mut self, at: u32, due: Time) {
        let Some(pending) = self.pending.get_mut(at) else { return };
        let due = due.min(pending.deadline);
        self.timers.remove(&(pending.due, at));
        pending.due = due;
        self.timers.insert((due, at));
    }

    fn send(&mut self, now: Time, at: u32, server: Addr, stream: bool, out: &mut Vec<Action>) {
        let id = self.draw() as u16;
        let mixed = !stream && self.servers.keeps_case(server, now);
        let Some(pending) = self.pending.get(at) else { return };
        let (flags, edns) = (pending.flags, pending.edns());
        let mut question = pending.question.clone();
        if mixed {
            message::mix_case(&mut question, || self.draw());
        }
        let message = message::query(id, flags, &question, edns);
        self.epoch = self.epoch.wrapping_add(1);
        let epoch = self.epoch & Exchange::EPOCH_MASK;
        let asked = Asked { pending: at, epoch, server, stream, id, question, mixed, sent: now };
        let slot = self.asked.insert(asked);
        let exchange = Exchange { slot, epoch, stream };
        if let Some(pending) = self.pending.get_mut(at) {
            pending.exchanges.push(exchange);
        }
        self.stats.asked += 1;
        out.push(Action::Ask { exchange, server, message });
    }

    fn asked(&self, exchange: Exchange) -> Option<&Asked> {
        let asked = self.asked.get(exchange.slot)?;
        ((asked.epoch, asked.stream) == (exchange.epoch, exchange.stream)).then_some(asked)
    }

    /// Ends one exchange and gives what it was.
    fn end(&mut self, exchange: Exchange, out: &mut Vec<Action>) -> Option<Asked> {
        self.asked(exchange)?;
        let asked = self.asked.remove(exchange.slot)?;
        if let Some(pending) = self.pending.get_mut(asked.pending) {
            pending.exchanges.retain(|other| *other != exchange);
        }
        out.push(Action::Close(exchange));
        Some(asked)
    }

    /// Whether an exchange still waits for its answer.
    pub fn is_open(&self, exchange: Exchange) -> bool {
        self.asked(exchange).is_some()
    }

    /// Takes in what arrived at the socket of an exchange.
    pub fn reply(
        &mut self,
        now: Time,
        exchange: Exchange,
        from: (Addr, u16),
        reply: &[u8],
        out: &mut Vec<Action>,
    ) {
        let Some(asked) = self.asked(exchange) else { return };
        let message = Message::new(reply);
        let answers = message.filter(|m| {
            let question = m.question();
            from == (asked.server, PORT)
                && m.is_response()
                && m.id() == asked.id
                && question.eq_ignore_ascii_case(&asked.question)
                // Type and class are no letters.
                && question[question.len() - 4..] == asked.question[asked.question.len() - 4..]
        });
        let Some(message) = answers else {
            self.stats.ignored += 1;
            return;
        };
        let changed = asked.mixed && message.question() != asked.question;
        let Some(asked) = self.end(exchange, out) else { return };
        self.servers.answered(asked.server, now.since(asked.sent));
        if changed {
            self.servers.changes_case(asked.server, now);
            return self.send(now, asked.pending, asked.server, false, out);
        }
        self.judge(now, &asked, &message, out);
    }

    /// What an answer is worth.
    fn judge(&mut self, now: Time, asked: &Asked, message: &Message<'_>, out: &mut Vec<Action>) {
        let at = asked.pending;
        let records = message.records();
        let edns = records.as_deref().and_then(|records| message.edns(records));
        let code = message.code(edns);
        if message.is_truncated() && !asked.stream {
            let question = message.question();
            let mut truncated = Stored::empty(question, message.flags(), code);
            truncated.set_truncated();
            return self.by_stream(now, at, asked.server, truncated, out);
        }
        let stored = records.as_deref().and_then(|records| Stored::new(message, records));
        let Some(pending) = self.pending.get_mut(at) else { return };
        match (code, stored) {
            (message::NO_ERROR | message::NAME_ERROR, Some(stored)) => {
                let life = stored.lifetime((NAMES_TTL_MAX, NAMES_NEGATIVE_TTL_MAX));
                let life = life.map(|seconds| Span::from_secs(seconds.into()));
                self.finish(now, at, stored, life, out);
            }
            // Some do not know EDNS and say so (RFC 6891 7), or know another version.
            (message::FORMAT_ERROR | message::NOT_IMPLEMENTED | 16.., _) if !pending.plain => {
                pending.plain = true;
                self.send(now, at, asked.server, asked.stream, out);
            }
            (_, stored) => {
                if let Some(stored) = stored.filter(|_| pending.best.is_none()) {
                    pending.best = Some(stored);
                }
                self.attempt_failed(now, at, out);
            }
        }
    }

    /// The answer is longer than a datagram: asks for it by TCP, and keeps what there is.
    fn by_stream(
        &mut self,
        now: Time,
        at: u32,
        server: Addr,
        truncated: Stored,
        out: &mut Vec<Action>,
    ) {
        if let Some(pending) = self.pending.get_mut(at) {
            pending.best = Some(truncated);
            let deadline = pending.deadline;
            self.due(at, deadline);
            self.send(now, at, server, true, out);
        }
    }

    /// The socket of an exchange failed: nobody listens there, or there is no way.
    pub fn failed(&mut self, now: Time, exchange: Exchange, out: &mut Vec<Action>) {
        let Some(asked) = self.end(exchange, out) else { return };
        if !asked.stream {
            self.servers.failed(asked.server, now);
        }
        self.attempt_failed(now, asked.pending, out);
    }

    fn attempt_failed(&mut self, now: Time, at: u32, out: &mut Vec<Action>) {
        let Some(pending) = self.pending.get(at) else { return };
        let truncated = pending.best.as_ref().is_some_and(Stored::is_truncated);
        if !truncated && usize::from(pending.attempts) < pending.order.len() {
            self.next_attempt(now, at, out);
        } else if pending.exchanges.is_empty() {
            self.fail(now, at, out);
        }
    }

    /// Nobody gave a good answer: the best one there is, or that there is none.
    fn fail(&mut self, now: Time, at: u32, out: &mut Vec<Action>) {
        let Some(pending) = self.pending.get_mut(at) else { return };
        let (best, flags) = (pending.best.take(), pending.flags);
        let question = pending.question.clone();
        self.stats.failed += 1;
        let stored =
            best.unwrap_or_else(|| Stored::empty(&question, flags, message::SERVER_FAILURE));
        let life = (!stored.is_truncated()).then_some(NAMES_FAILURE_KEPT);
        self.finish(now, at, stored, life, out);
    }

    /// Everybody who waits is answered.
    fn finish(
        &mut self,
        now: Time,
        at: u32,
        stored: Stored,
        life: Option<Span>,
        out: &mut Vec<Action>,
    ) {
        let Some(pending) = self.pending.remove(at) else { return };
        self.timers.remove(&(pending.due, at));
        self.by_key.remove(&pending.key);
        for exchange in pending.exchanges {
            // Whoever has not answered by now is slower than the next one.
            if let Some(asked) = self.end(exchange, out)
                && now.since(asked.sent) >= self.servers.patience(asked.server)
            {
                self.servers.failed(asked.server, now);
            }
        }
        for waiter in &pending.waiters {
            self.leave(waiter.client.port);
            out.push(Action::Answer(waiter.client, stored.answer(&waiter.asker(), 0)));
        }
        if let Some(life) = life.filter(|_| pending.generation == self.generation) {
            self.cache.insert(now, pending.key, pending.owner, stored, life);
        }
    }

    fn leave(&mut self, port: PortId) {
        if let Some(waiting) = self.waiting.get_mut(&port) {
            *waiting -= 1;
            if *waiting == 0 {
                self.waiting.remove(&port);
            }
        }
    }

    /// When [`tick`](Self::tick) wants to be called.
    pub fn next_deadline(&self) -> Option<Time> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Time, out: &mut Vec<Action>) {
        while let Some(&(due, at)) = self.timers.first()
            && due <= now
        {
            self.timers.remove(&(due, at));
            let Some(pending) = self.pending.get_mut(at) else { continue };
            if pending.deadline <= now || pending.attempts >= NAMES_ATTEMPTS_MAX {
                self.fail(now, at, out);
            } else {
                if usize::from(pending.attempts).is_multiple_of(pending.order.len().max(1)) {
                    // They may have changed since.
                    pending.order = self.servers.order(now);
                    pending.attempts =
                        pending.attempts.next_multiple_of(pending.order.len().max(1) as u8);
                }
                self.next_attempt(now, at, out);
            }
        }
    }
}

/// What is not asked of others at all.
fn refusal(message: &Message<'_>) -> Option<u16> {
    /// Zone transfers, which are streams of messages and nobody's business here (RFC 5936, RFC 1995).
    const TRANSFERS: [u16; 2] = [251, 252];
    const REFUSED: u16 = 5;
    if !message.is_standard() {
        return Some(message::NOT_IMPLEMENTED);
    }
    TRANSFERS.contains(&message.kind()).then_some(REFUSED)
}

/// The question in lower case, and whatever of the query makes a different answer.
fn key(message: &Message<'_>, dnssec: bool) -> Key {
    let flags = message.flags() & (message::RD | message::AD | message::CD) | u16::from(dnssec);
    let mut key = message.question().to_vec();
    let name = key.len() - 4;
    key[..name].make_ascii_lowercase();
    key.extend(flags.to_be_bytes());
    key.into()
}

impl Exchange {
    /// Epochs are counted on a circle of this size less one.
    pub const EPOCH_MASK: u32 = (1 << 27) - 1;
}

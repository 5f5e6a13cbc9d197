//! The engine in one thread, one piece of work at a time, for simulation: the same containers, journal, catalogue and
//! chunks as in production, without the threads of `tasks`. Who is next is the caller's choice, so one seed gives one run.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::Options;
use crate::api::{Outcome, Request};
use crate::bucket::{Afterwards, Recovered};
use crate::catalogue::{Installed, Manifest, Merge};
use crate::container::{
    Ack, CheckpointDone, CheckpointJob, ColdOutcome, ColdRead, Container, Effects, Found, Token, covered,
};
use crate::error::StoreError;
use crate::io::Io;
use crate::journal::{Journal, Record, Reserve, Witness};
use crate::store;

/// Names a submitted request.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Ticket(pub u64);

impl Token for Ticket {
    fn is_abandoned(&self) -> bool {
        false
    }
}

/// A store that moves only when told to.
pub struct Stepper {
    io: Io,
    containers: Vec<Container<Ticket>>,
    manifests: Vec<Manifest>,
    journal: Journal,
    witness: Witness,
    reserve: Arc<Reserve>,
    /// What containers know of the reserve.
    is_low: bool,
    /// Records that no frame has yet.
    queued: Vec<Record>,
    /// Answers that go with them.
    acks: VecDeque<(u32, Ack<Ticket>)>,
    /// Newest operation of each container that was made durable in this run.
    committed: BTreeMap<u32, u64>,
    /// Durability that containers have not been told of.
    durable: BTreeMap<u32, u64>,
    jobs: VecDeque<CheckpointJob>,
    done: VecDeque<(u32, Done)>,
    /// By container; `None`: its catalogue may need one.
    merges: BTreeMap<u32, Option<Merge>>,
    reads: VecDeque<(u32, ColdRead<Ticket>)>,
    replies: Vec<(Ticket, Outcome)>,
    next_ticket: u64,
    /// Cold reads that were refused, and why.
    damage: Vec<StoreError>,
    /// Commits and checkpoints that found the disk full and are tried again.
    full_waits: u64,
    afterwards: Afterwards,
    recovered: Vec<Recovered>,
}

/// What a container is told of its catalogue, in the order in which it became durable.
enum Done {
    Checkpoint(CheckpointDone),
    Merge(Installed),
}

/// A piece of background work.
#[derive(Clone, Copy, Debug)]
enum Work {
    Commit,
    TellDurable,
    Checkpoint,
    TellCheckpoint,
    Merge,
    Read,
    Reap,
    Release,
    Fill,
    Testify,
}

impl Stepper {
    /// Opens the store, or creates it.
    ///
    /// # Errors
    /// As [`Engine::open`](crate::Engine::open).
    pub fn open(io: Io, options: Options) -> Result<Self, StoreError> {
        let opened = store::open(&io, &options, &Default::default())?;
        opened.reserve.fill()?;
        let mut stepper = Self {
            io,
            containers: opened.containers,
            manifests: opened.manifests,
            journal: opened.journal,
            witness: opened.witness,
            reserve: opened.reserve,
            is_low: false,
            queued: Vec::new(),
            acks: VecDeque::new(),
            committed: BTreeMap::new(),
            durable: BTreeMap::new(),
            jobs: VecDeque::new(),
            done: VecDeque::new(),
            merges: BTreeMap::new(),
            reads: VecDeque::new(),
            replies: Vec::new(),
            next_ticket: 0,
            damage: Vec::new(),
            full_waits: 0,
            afterwards: opened.afterwards,
            recovered: opened.recovered,
        };
        for (container, effects) in (0..).zip(opened.effects) {
            stepper.take(container, effects)?;
        }
        stepper.announce()?;
        Ok(stepper)
    }

    /// Number of containers of this store.
    pub fn containers(&self) -> u32 {
        self.containers.len() as u32
    }

    /// Requests that wait in one container, undecided, for memory, for room on the disk, or for the journal. They are decided
    /// first come, first served.
    pub fn held(&self, container: u32) -> usize {
        self.containers[container as usize].held()
    }

    /// The disk was found full and the reserve is not whole: what grows waits, what frees room goes on.
    pub fn is_full(&self) -> bool {
        self.is_low
    }

    /// Why cold reads were refused since the last call.
    pub fn take_damage(&mut self) -> Vec<StoreError> {
        std::mem::take(&mut self.damage)
    }

    /// How often a commit or a checkpoint found the disk full. It stays in its queue and is tried again, as often as the
    /// caller asks for work.
    pub fn full_waits(&self) -> u64 {
        self.full_waits
    }

    /// Tells a container what of it is durable, as happens before every request: whoever heard an acknowledgement may ask
    /// at once, and in production both stand in the container's inbox, in this order. What was held may be decided now.
    ///
    /// # Errors
    /// As [`submit`](Self::submit).
    pub fn catch_up(&mut self, container: u32) -> Result<(), StoreError> {
        self.tell_durable(container)
    }

    /// Hands a request to its container, which decides it at once, unless writes wait.
    ///
    /// # Errors
    /// Damage or a disk error met while deciding; the store is at its end.
    pub fn submit(&mut self, request: Request) -> Result<Ticket, StoreError> {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        let container = request.segment().container(self.containers());
        self.catch_up(container)?;
        let mut effects = Effects::default();
        let now = self.io.clock.wall_millis();
        self.containers[container as usize].request(now, request, ticket, &mut effects)?;
        self.take(container, effects)?;
        Ok(ticket)
    }

    /// Asks one container for a checkpoint, as the journal's size would in the long run.
    ///
    /// # Errors
    /// As [`submit`](Self::submit).
    pub fn checkpoint(&mut self, container: u32) -> Result<(), StoreError> {
        let mut effects = Effects::default();
        self.containers[container as usize].checkpoint(&mut effects)?;
        self.take(container, effects)?;
        Ok(())
    }

    /// Does one piece of background work; `choice` picks which, whatever its value. False if there is none.
    ///
    /// # Errors
    /// A failed write or sync, or damage; the store is at its end.
    pub fn run_one(&mut self, choice: u64) -> Result<bool, StoreError> {
        let mut possible = Vec::new();
        let mut offer = |there: bool, work| {
            if there {
                possible.push(work);
            }
        };
        offer(!self.queued.is_empty(), Work::Commit);
        offer(!self.durable.is_empty(), Work::TellDurable);
        offer(!self.jobs.is_empty(), Work::Checkpoint);
        offer(!self.done.is_empty(), Work::TellCheckpoint);
        offer(!self.reads.is_empty(), Work::Read);
        offer(!self.merges.is_empty(), Work::Merge);
        offer(self.reserve.is_low(), Work::Fill);
        if possible.is_empty() {
            return Ok(false);
        }
        // These are always possible and never needed: without them in the draw alone, the store would never be at rest.
        possible.push(Work::Reap);
        possible.push(Work::Release);
        possible.push(Work::Testify);
        let work = possible[(choice % possible.len() as u64) as usize];
        self.perform(work)?;
        self.announce()?;
        Ok(true)
    }

    /// Does all background work there is, in a fixed order.
    ///
    /// # Errors
    /// As [`run_one`](Self::run_one).
    pub fn run_all(&mut self) -> Result<(), StoreError> {
        while self.run_one(0)? {}
        Ok(())
    }

    /// What an emptied data directory got back when the store was opened.
    pub fn recovered(&self) -> &[Recovered] {
        &self.recovered
    }

    /// Deletes every chunk that was given up, as time does in production.
    ///
    /// # Errors
    /// As [`run_one`](Self::run_one).
    pub fn reap(&mut self) -> Result<(), StoreError> {
        self.settle()?;
        for container in &self.containers {
            while container.chunks().reap(&mut || ()) {}
        }
        Ok(())
    }

    fn settle(&mut self) -> Result<(), StoreError> {
        let chunks: Vec<_> = self.containers.iter().map(Container::chunks).collect();
        match self.afterwards.settle(&*self.io.disk, self.io.clock.wall_millis(), &chunks) {
            // It stays due.
            Err(StoreError::Unreachable { .. }) => Ok(()),
            settled => settled,
        }
    }

    /// Answers since the last call, in the order they were given.
    pub fn take_replies(&mut self) -> Vec<(Ticket, Outcome)> {
        std::mem::take(&mut self.replies)
    }

    /// Closes the journal in good order, after everything is durable.
    ///
    /// # Errors
    /// As [`run_one`](Self::run_one).
    pub fn close(mut self) -> Result<Vec<(Ticket, Outcome)>, StoreError> {
        for container in 0..self.containers() {
            let mut effects = Effects::default();
            self.containers[container as usize].close(&mut effects);
            self.take(container, effects)?;
        }
        let before = self.full_waits;
        while self.run_one(0)? {
            // Closing does not wait for room: what is queued was never acknowledged.
            if self.full_waits > before {
                return Ok(self.replies);
            }
        }
        self.journal.close()?;
        self.witness.testify(&*self.io.disk, self.journal.synced())?;
        Ok(self.replies)
    }

    fn absorb(&mut self, container: u32, effects: Effects<Ticket>) {
        self.queued.extend(effects.records);
        self.acks.extend(effects.acks.into_iter().map(|ack| (container, ack)));
        self.replies.extend(effects.replies);
        self.reads.extend(effects.reads.into_iter().map(|read| (container, read)));
        self.jobs.extend(effects.checkpoint);
    }

    /// Takes the effects of a step, goes on with what was held back, and begins a checkpoint if that made one due.
    fn take(&mut self, id: u32, effects: Effects<Ticket>) -> Result<(), StoreError> {
        self.look_up(id, effects)?;
        let mut released = Effects::default();
        while self.containers[id as usize].release(self.io.clock.wall_millis(), &mut released)? {
            self.look_up(id, std::mem::take(&mut released))?;
        }
        let container = &mut self.containers[id as usize];
        if container.wants_checkpoint() {
            let mut effects = Effects::default();
            container.checkpoint(&mut effects)?;
            self.absorb(id, effects);
        }
        Ok(())
    }

    /// Looks up what a step asks for, at once, so that requests are decided in the order in which they were handed over,
    /// those about different segments too: a merge names two.
    fn look_up(&mut self, id: u32, mut effects: Effects<Ticket>) -> Result<(), StoreError> {
        while !effects.lookups.is_empty() {
            let lookup = effects.lookups.remove(0);
            match lookup.run(&self.containers[id as usize].chunks())? {
                Found::Answer(ticket, outcome) => effects.replies.push((ticket, outcome)),
                Found::Failed(ticket, error) => {
                    effects.replies.push((ticket, Err(error.refusal())));
                    self.damage.push(error);
                }
                Found::Abandoned(error) => self.damage.push(error),
                Found::Back(back) => {
                    let now = self.io.clock.wall_millis();
                    self.containers[id as usize].looked_up(now, back, &mut effects)?;
                }
            }
        }
        self.absorb(id, effects);
        Ok(())
    }

    fn tell_durable(&mut self, container: u32) -> Result<(), StoreError> {
        if let Some(sequence) = self.durable.remove(&container) {
            let mut effects = Effects::default();
            self.containers[container as usize].durable(sequence, &mut effects)?;
            self.take(container, effects)?;
        }
        Ok(())
    }

    fn perform(&mut self, work: Work) -> Result<(), StoreError> {
        match work {
            Work::Commit => {
                let result = self.commit();
                while let Some((container, ack)) = self.acks.pop_front() {
                    if self.committed.get(&container).is_none_or(|last| *last < ack.after) {
                        self.acks.push_front((container, ack));
                        break;
                    }
                    self.replies.push((ack.token, ack.outcome));
                }
                self.unless_full(result)?;
            }
            Work::TellDurable => {
                let (container, _) = self.durable.first_key_value().expect("there is one");
                self.tell_durable(*container)?;
            }
            Work::Checkpoint => {
                let mut job = self.jobs.pop_front().expect("there is one");
                let container = job.container;
                let chunks = self.containers[container as usize].chunks();
                let manifest = &mut self.manifests[container as usize];
                match job.run(&*self.io.disk, manifest, &chunks, &mut || ()) {
                    Ok(done) => {
                        self.reserve.helped();
                        self.afterwards.checkpointed(container, job.take_dead_chunks(), &chunks);
                        self.done.push_back((container, Done::Checkpoint(done)));
                        self.merges.entry(container).or_default();
                        self.settle()?;
                    }
                    Err(StoreError::Unreachable { .. }) => self.jobs.push_back(job),
                    Err(error) => {
                        let is_lent = error.is_full() && self.reserve.lend()?;
                        if is_lent {
                            self.jobs.push_front(job)
                        } else {
                            self.jobs.push_back(job)
                        }
                        self.unless_full(if is_lent { Ok(()) } else { Err(error) })?;
                    }
                }
            }
            Work::TellCheckpoint => {
                let (container, done) = self.done.pop_front().expect("there is one");
                let mut effects = Effects::default();
                match done {
                    Done::Checkpoint(done) => {
                        self.containers[container as usize].checkpoint_done(done, &mut effects)?;
                    }
                    Done::Merge(installed) => self.containers[container as usize].merged(installed),
                }
                self.take(container, effects)?;
            }
            Work::Merge => {
                let (container, merge) = self.merges.pop_first().expect("there is one");
                let manifest = &mut self.manifests[container as usize];
                let disk = &*self.io.disk;
                let begun = match merge {
                    Some(merge) => Ok(Some(merge)),
                    None => Merge::begin(disk, manifest),
                };
                let (mut merge, number) = match begun {
                    Ok(None) => return Ok(()),
                    Ok(Some(merge)) => {
                        let number = merge.number();
                        (merge, number)
                    }
                    Err(error) => return self.unless_full(Err(error)),
                };
                let merged = match merge.step() {
                    Ok(false) => {
                        self.merges.insert(container, Some(merge));
                        return Ok(());
                    }
                    Ok(true) => merge.finish(disk, manifest),
                    Err(error) => Err(error),
                };
                match merged {
                    Ok(installed) => {
                        self.done.push_back((container, Done::Merge(installed)));
                        self.merges.insert(container, None);
                    }
                    Err(error) => {
                        // The next checkpoint asks again.
                        if error.is_full() {
                            Merge::abandon(disk, manifest, number);
                        }
                        self.unless_full(Err(error))?;
                    }
                }
            }
            Work::Read => {
                let (container, read) = self.reads.pop_front().expect("there is one");
                match read.run(&self.containers[container as usize].chunks()) {
                    ColdOutcome::Answer(ticket, outcome) => self.replies.push((ticket, outcome)),
                    ColdOutcome::Failed(ticket, error) => {
                        self.replies.push((ticket, Err(error.refusal())));
                        self.damage.push(error);
                    }
                    ColdOutcome::Again(again) => {
                        let mut effects = Effects::default();
                        self.containers[container as usize].read_again(again, &mut effects)?;
                        self.take(container, effects)?;
                    }
                }
            }
            Work::Release => {
                let covered = covered(&self.containers);
                self.journal.release(&covered)?;
                if self.journal.is_long() {
                    for container in self.journal.pinning(&covered) {
                        self.checkpoint(container)?;
                    }
                }
            }
            Work::Reap => {
                let _ = self.containers.iter().any(|container| container.chunks().reap(&mut || ()));
            }
            Work::Fill => {
                if !self.reserve.fill()? {
                    self.full_waits += 1;
                }
            }
            Work::Testify => {
                let result = self.witness.testify(&*self.io.disk, self.journal.synced());
                self.unless_full(result)?;
                self.reserve.turn()?;
            }
        }
        Ok(())
    }

    /// Tells the containers whether room on the disk is low, if that has changed.
    fn announce(&mut self) -> Result<(), StoreError> {
        let is_low = self.reserve.is_low();
        if std::mem::replace(&mut self.is_low, is_low) != is_low {
            for id in 0..self.containers() {
                self.containers[id as usize].room_changed(is_low);
                self.take(id, Effects::default())?;
            }
        }
        Ok(())
    }

    /// Commits frame by frame until nothing is queued.
    fn commit(&mut self) -> Result<(), StoreError> {
        while !self.queued.is_empty() {
            let count = self.journal.commit(&self.queued)?;
            for record in self.queued.drain(..count) {
                self.durable.insert(record.container, record.sequence);
                self.committed.insert(record.container, record.sequence);
            }
        }
        Ok(())
    }

    /// A full disk makes work wait; everything else ends the store.
    fn unless_full(&mut self, result: Result<(), StoreError>) -> Result<(), StoreError> {
        match result {
            Err(error) if error.is_full() => {
                self.full_waits += 1;
                Ok(())
            }
            result => result,
        }
    }
}

impl std::fmt::Debug for Stepper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stepper").field("queued", &self.queued.len()).finish_non_exhaustive()
    }
}

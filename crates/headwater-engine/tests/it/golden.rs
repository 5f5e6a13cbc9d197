//! Data directories that earlier releases wrote: every release opens them all, reads back exactly what was in them, and
//! goes on writing.
//!
//! `tests/golden/RELEASE/STORE` is a data directory as that release left it, `STORE.expected` what it answered when asked
//! for everything. Neither is changed once the release is out. A release that changes a format adds its own:
//! `HEADWATER_WRITE_GOLDEN=RELEASE cargo test --release -p headwater-engine golden`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use headwater_engine::check::{CheckError, Severity};
use headwater_engine::{BucketOptions, ContainerLimits, Stepper};
use headwater_types::AttributeId;

use super::bucket::Memory;
use super::*;

const S: &str = "golden/stream/0.#epoch.0";
const SEALED: &str = "golden/stream/1.#epoch.0";
const DELETED: &str = "golden/stream/2.#epoch.0";
const LATE: &str = "golden/stream/3.#epoch.0";
const BIG: &str = "golden/stream/4.#epoch.0";
const TRANSACTION: &str = "golden/stream/0.#epoch.0#transaction.00000000000000010000000000000002";
const OPEN_TRANSACTION: &str = "golden/stream/0.#epoch.0#transaction.00000000000000030000000000000004";
const LATE_TRANSACTION: &str = "golden/stream/0.#epoch.0#transaction.00000000000000050000000000000006";
const TRANSIENT: &str =
    "golden/stream/0.#epoch.0#transient.00000000000000000000000000000007.00000000000000000000000000000008";
const TABLE: &str = "golden/group_kvtable/0.#epoch.0";
const SORTED: &str = "golden/index_kvtable/0.#epoch.0";
const CHURNED: &str = "golden/marks_kvtable/0.#epoch.0";
/// Stores of one release.
const STORES: [&str; 4] = ["closed", "journal", "killed", "remote"];
/// The store whose chunks are in object storage, and the objects.
const REMOTE: &str = "remote";
const OBJECTS: &str = "remote.objects";
/// Small enough to be kept in the repository, large enough for everything below.
const JOURNAL_FILE_BYTES: u64 = 64 << 10;
const CONTAINERS: u32 = 2;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// Checkpoints come when this test asks for them.
fn options(objects: Option<&Arc<Memory>>) -> Options {
    let limits = ContainerLimits {
        flush_bytes: 64 << 20,
        unstored_bytes_max: 64 << 20,
        hot_bytes: 16 << 20,
        cache_bytes: 0,
        idle_segments: 100,
        table_compact_bytes: ContainerLimits::TABLE_COMPACT_BYTES,
        table_step_bytes: ContainerLimits::TABLE_STEP_BYTES,
    };
    let bucket =
        objects.map(|objects| BucketOptions { objects: objects.clone(), shown: "s3://bucket".into(), recover: false });
    Options {
        containers: CONTAINERS,
        journal_file_bytes: JOURNAL_FILE_BYTES,
        container_limits: Some(limits),
        bucket,
        ..small()
    }
}

fn event(number: i64) -> Vec<u8> {
    format!("event {number};").repeat(20).into_bytes()
}

/// Text that no block or piece boundary divides evenly.
fn text(name: &str, lines: usize) -> Vec<u8> {
    (0..lines).flat_map(|line| format!("{name}, line {line}\n").into_bytes()).collect()
}

/// A store that is being written.
struct Author {
    stepper: Stepper,
    numbers: BTreeMap<&'static str, i64>,
}

impl Author {
    fn call(&mut self, request: Request) {
        let shown = format!("{request:?}");
        let asked = self.stepper.submit(request).unwrap();
        self.stepper.run_all().unwrap();
        let replies = self.stepper.take_replies();
        let (_, outcome) = replies.into_iter().find(|(ticket, _)| *ticket == asked).expect("it is answered");
        outcome.unwrap_or_else(|refusal| panic!("{shown}: {refusal}"));
    }

    fn create(&mut self, segment: &str, kind: SegmentKind) {
        let policy = SegmentPolicy { scale_type: 1, rate: 20, rollover_bytes: 1 << 20 };
        self.call(Request::Create { segment: name(segment), kind, policy, on_reserve: false });
    }

    fn append(&mut self, segment: &'static str, data: &[u8]) {
        let number = self.numbers.entry(segment).or_default();
        let previous = (*number > 0).then_some(*number);
        *number += 1;
        let number = *number;
        self.stepper.submit(Request::Append(append(segment, previous, number, data))).unwrap();
        // Of what can be done beside a commit, the last is to testify to what was durable before.
        self.stepper.run_one(3).unwrap();
        self.stepper.run_all().unwrap();
        assert!(self.stepper.take_replies().iter().all(|(_, outcome)| outcome.is_ok()));
    }

    fn put(&mut self, table: &str, key: &str, value: Option<String>) {
        let (key, value) = (key.as_bytes().to_vec().into(), value.map(Bytes::from));
        let changes = vec![TableChange { key, value, expect: Expect::Any }];
        self.call(Request::TableUpdate { segment: name(table), changes, at: None });
    }

    fn attributes(&mut self, segment: &str, updates: &[(u128, UpdateKind, i64)]) {
        let update = |&(id, kind, value): &_| AttributeUpdate { id: AttributeId(id), kind, value };
        let updates = updates.iter().map(update).collect();
        self.call(Request::UpdateAttributes { segment: name(segment), updates });
    }

    /// Everything so far goes into chunks and runs, and journal files that nobody needs are set aside.
    fn checkpoint(&mut self) {
        for container in 0..CONTAINERS {
            self.stepper.checkpoint(container).unwrap();
        }
        let mut choice = 0;
        while self.stepper.run_one(choice).unwrap() {
            choice += 1;
        }
        // Some work is only done beside other work.
        for choice in 0..20 {
            self.stepper.checkpoint(choice as u32 % CONTAINERS).unwrap();
            self.stepper.run_one(choice).unwrap();
        }
        self.stepper.run_all().unwrap();
    }

    /// Something of every kind, twice: what is there already changes, too.
    fn first_part(&mut self) {
        for segment in [S, SEALED, DELETED, BIG, TRANSACTION, OPEN_TRANSACTION] {
            self.create(segment, SegmentKind::Stream);
        }
        self.create(TABLE, SegmentKind::Table { key_length: 0 });
        self.create(SORTED, SegmentKind::Table { key_length: 8 });
        self.create(CHURNED, SegmentKind::Table { key_length: 0 });
        for number in 1..=30 {
            self.append(S, &event(number));
        }
        self.append(SEALED, &text("sealed", 5));
        self.append(DELETED, &text("deleted", 50));
        self.append(BIG, &text("two blocks and something", 3000)[..50_000]);
        self.append(BIG, &text("two blocks and something", 3000)[50_000..]);
        self.append(TRANSACTION, b"committed;");
        self.append(OPEN_TRANSACTION, b"under way;");
        for number in 0..30 {
            self.put(TABLE, &format!("key-{:02}", number % 20), Some(format!("value {number}")));
            self.put(SORTED, &format!("{:08}", number * 7 % 30), Some(format!("sorted {number}")));
        }
        self.put(TABLE, "key-03", None);
        // Long enough to be compacted, and as good as nothing when it is compressed.
        for round in 0..90 {
            self.put(CHURNED, &format!("mark-{}", round % 3), Some(format!("{round} ").repeat(4000)));
        }
        self.attributes(
            S,
            &[(1, UpdateKind::IfAbsent, 11), (2, UpdateKind::Replace, 22), (3, UpdateKind::Accumulate, 3)],
        );
        self.call(Request::Seal { segment: name(SEALED) });
        self.call(Request::Truncate { segment: name(S), offset: event(1).len() as u64 });
    }

    fn second_part(&mut self) {
        self.call(Request::Merge { target: name(S), source: name(TRANSACTION), updates: Vec::new() });
        for number in 31..=50 {
            self.append(S, &event(number));
        }
        for number in 30..40 {
            self.put(TABLE, &format!("key-{:02}", number % 20), Some(format!("value {number}")));
        }
        self.put(SORTED, "00000007", None);
        self.attributes(S, &[(2, UpdateKind::IfEquals(22), 23), (3, UpdateKind::Accumulate, 4)]);
        self.attributes(S, &[(1, UpdateKind::Replace, headwater_types::attribute::NULL)]);
        self.call(Request::Delete { segment: name(DELETED) });
        let policy = SegmentPolicy { scale_type: 2, rate: 7, rollover_bytes: 0 };
        self.call(Request::SetPolicy { segment: name(BIG), policy });
    }

    /// Every kind of record behind the last checkpoint.
    fn third_part(&mut self) {
        self.create(LATE, SegmentKind::Stream);
        self.append(LATE, b"only in the journal");
        self.call(Request::Seal { segment: name(LATE) });
        self.create(LATE_TRANSACTION, SegmentKind::Stream);
        self.append(LATE_TRANSACTION, b"committed late;");
        let updates = vec![AttributeUpdate { id: AttributeId(4), kind: UpdateKind::Replace, value: 44 }];
        self.call(Request::Merge { target: name(S), source: name(LATE_TRANSACTION), updates });
        self.create(TRANSIENT, SegmentKind::Transient);
        self.append(TRANSIENT, b"half an upload");
        self.append(S, &event(51));
        self.put(TABLE, "key-19", Some("the last".into()));
        self.put(TABLE, "key-04", None);
        for round in 90..120 {
            self.put(CHURNED, &format!("mark-{}", round % 3), Some(format!("{round} ").repeat(4000)));
        }
        self.attributes(S, &[(2, UpdateKind::Accumulate, 1)]);
        self.call(Request::Truncate { segment: name(S), offset: 2 * event(1).len() as u64 });
        self.create(DELETED, SegmentKind::Stream);
        self.append(DELETED, b"of the same name;");
    }
}

/// What [`Author`] has left in the first stream.
fn stream_bytes() -> Vec<u8> {
    let mut bytes: Vec<u8> = (3..=30).flat_map(event).collect();
    bytes.extend(b"committed;");
    bytes.extend((31..=50).flat_map(event));
    bytes.extend(b"committed late;");
    bytes.extend(event(51));
    bytes
}

fn write(directory: &Path, kind: &str, objects: Option<&Arc<Memory>>) {
    let io = Io {
        disk: Arc::new(RealDisk::new(directory)),
        clock: Arc::new(RealClock::default()),
        random: Arc::new(RealRandom),
    };
    let stepper = Stepper::open(io, options(objects)).unwrap();
    let mut author = Author { stepper, numbers: BTreeMap::new() };
    author.first_part();
    if kind != "journal" {
        author.checkpoint();
    }
    author.second_part();
    if kind != "journal" {
        author.checkpoint();
    }
    author.numbers.remove(DELETED);
    author.third_part();
    match kind {
        "killed" | "journal" => drop(author),
        _ => drop(author.stepper.close().unwrap()),
    }
}

/// A line for everything that can be asked for.
type Answers = BTreeMap<String, String>;

fn ask(stepper: &mut Stepper, request: Request) -> Outcome {
    let asked = stepper.submit(request).unwrap();
    stepper.run_all().unwrap();
    let replies = stepper.take_replies();
    replies.into_iter().find(|(ticket, _)| *ticket == asked).expect("it is answered").1
}

/// Bytes as they can be compared in a text file.
fn shown(bytes: &[u8]) -> String {
    format!("{} bytes, {:08x}, {:.24}", bytes.len(), crc32c::crc32c(bytes), bytes.escape_ascii().to_string())
}

/// Asks for everything.
fn ask_all(stepper: &mut Stepper) -> Answers {
    let mut answers = Answers::new();
    let streams = [S, SEALED, DELETED, LATE, BIG, TRANSACTION, OPEN_TRANSACTION, LATE_TRANSACTION, TRANSIENT];
    for segment in streams.into_iter().chain([TABLE, SORTED, CHURNED]) {
        let info = ask(stepper, Request::Info { segment: name(segment) });
        answers.insert(format!("{segment} info"), format!("{info:?}"));
        let writer = ask(stepper, Request::OpenWriter { segment: name(segment), writer: WRITER });
        answers.insert(format!("{segment} writer"), format!("{writer:?}"));
        for id in 1..=4 {
            let value = ask(stepper, Request::Attribute { segment: name(segment), id: AttributeId(id) });
            answers.insert(format!("{segment} attribute {id}"), format!("{value:?}"));
        }
        let Ok(Response::Info(info)) = info else { continue };
        if streams.contains(&segment) {
            answers.insert(format!("{segment} bytes"), read_all(stepper, segment, info));
        } else {
            let table = ask(stepper, Request::TableInfo { segment: name(segment) });
            answers.insert(format!("{segment} table"), format!("{table:?}"));
            answers.insert(format!("{segment} entries"), scan_all(stepper, segment));
            let delta = Request::TableDelta { segment: name(segment), from: info.start, count_max: 1000 };
            let delta = match ask(stepper, delta) {
                Ok(Response::Delta(delta)) => {
                    format!("{}, clear {}, to {}", entries(&delta.entries), delta.should_clear, delta.position)
                }
                other => format!("{other:?}"),
            };
            answers.insert(format!("{segment} delta"), delta);
        }
    }
    answers
}

fn read_all(stepper: &mut Stepper, segment: &str, info: SegmentInfo) -> String {
    let mut all = Vec::new();
    while info.start + (all.len() as u64) < info.length {
        let offset = info.start + all.len() as u64;
        match ask(stepper, Request::Read { segment: name(segment), offset, bytes_max: 1 << 20 }) {
            Ok(Response::Read(read)) => all.extend(read.data.concat()),
            other => return format!("{other:?}"),
        }
    }
    shown(&all)
}

fn scan_all(stepper: &mut Stepper, segment: &str) -> String {
    let mut all = Vec::new();
    loop {
        let from = all.last().map(|entry: &TableEntry| entry.key.clone());
        let range = ScanRange { from, exclusive: true, ..ScanRange::default() };
        match ask(stepper, Request::TableScan { segment: name(segment), range, count_max: 7, keys_only: false }) {
            Ok(Response::Page(page)) if page.is_empty() => return entries(&all),
            Ok(Response::Page(page)) => all.extend(page),
            other => return format!("{other:?}"),
        }
    }
}

fn entries(entries: &[TableEntry]) -> String {
    let mut line = String::new();
    for entry in entries {
        write!(line, "{} @{} {}; ", entry.key.escape_ascii(), entry.version, shown(&entry.value)).unwrap();
    }
    line
}

/// A copy that may be changed. The repository keeps no empty directories.
fn copy(from: &Path) -> Arc<tempfile::TempDir> {
    let to = Arc::new(tempfile::tempdir().unwrap());
    for container in 0..CONTAINERS {
        fs::create_dir(to.path().join(format!("chunks-{container:04}"))).unwrap();
    }
    for path in super::check::files(from) {
        let place = to.path().join(path.strip_prefix(from).unwrap());
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::copy(path, place).unwrap();
    }
    to
}

/// One store that some release wrote.
struct Golden {
    shown: String,
    directory: PathBuf,
    /// Content of its bucket, if it has one.
    objects: Option<PathBuf>,
    expected: Answers,
}

impl Golden {
    fn of(release: &Path, store: &str) -> Self {
        let expected = fs::read_to_string(release.join(format!("{store}.expected"))).unwrap();
        let expected = expected.lines().map(|line| line.split_once(": ").unwrap());
        Self {
            shown: format!("{store} of {}", release.display()),
            directory: release.join(store),
            objects: (store == REMOTE).then(|| release.join(OBJECTS)),
            expected: expected.map(|(label, answer)| (label.to_owned(), answer.to_owned())).collect(),
        }
    }

    fn options(&self) -> Options {
        let memory = self.objects.as_ref().map(|place| {
            let objects = super::check::files(place).into_iter().map(|path| {
                let name = path.strip_prefix(place).unwrap().to_str().unwrap().to_owned();
                (name, fs::read(path).unwrap().into())
            });
            Arc::new(Memory::holding(objects.collect()))
        });
        options(memory.as_ref())
    }
}

/// All that were ever written.
fn all() -> Vec<Golden> {
    static WRITTEN: OnceLock<()> = OnceLock::new();
    WRITTEN.get_or_init(|| {
        if let Ok(release) = std::env::var("HEADWATER_WRITE_GOLDEN") {
            write_release(&golden().join(release));
        }
    });
    let mut releases: Vec<_> = fs::read_dir(golden()).unwrap().map(|entry| entry.unwrap().path()).collect();
    releases.retain(|path| path.is_dir());
    releases.sort();
    assert!(!releases.is_empty());
    releases.iter().flat_map(|release| STORES.map(|store| Golden::of(release, store))).collect()
}

fn write_release(release: &Path) {
    assert!(!release.exists(), "what a release wrote is never written again");
    for store in STORES {
        let memory = (store == REMOTE).then(Arc::<Memory>::default);
        let directory = release.join(store);
        fs::create_dir_all(&directory).unwrap();
        write(&directory, store, memory.as_ref());
        if let Some(memory) = &memory {
            for (name, content) in memory.all() {
                let path = release.join(OBJECTS).join(name);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, content).unwrap();
            }
        }
        let copied = copy(&directory);
        let mut stepper = Stepper::open(io(&copied), options(memory.as_ref())).unwrap();
        let lines: String =
            ask_all(&mut stepper).into_iter().map(|(label, answer)| format!("{label}: {answer}\n")).collect();
        fs::write(release.join(format!("{store}.expected")), lines).unwrap();
    }
}

/// Every file of a directory with what is in it.
fn contents(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    super::check::files(directory).into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

#[test]
fn golden_directories_hold_something_of_every_kind() {
    for golden in all() {
        let answer = |label: String| golden.expected.get(&label).map(String::as_str).unwrap_or_default();
        assert!(answer(format!("{S} bytes")) == shown(&stream_bytes()), "{}", golden.shown);
        assert!(answer(format!("{S} writer")).contains("Some(51)"));
        let attributes = [1, 2, 3, 4].map(|id| answer(format!("{S} attribute {id}")));
        assert_eq!(attributes[1..], [24, 7, 44].map(|value| format!("Ok(Attribute({value}))")));
        assert!(answer(format!("{LATE} info")).contains("sealed: true"));
        assert!(answer(format!("{SEALED} bytes")) == shown(&text("sealed", 5)));
        assert!(answer(format!("{BIG} bytes")) == shown(&text("two blocks and something", 3000)));
        assert!(answer(format!("{DELETED} bytes")) == shown(b"of the same name;"));
        for gone in [TRANSACTION, LATE_TRANSACTION, TRANSIENT] {
            assert_eq!(answer(format!("{gone} info")), "Err(NoSuchSegment)", "{gone}");
        }
        let table = answer(format!("{TABLE} entries"));
        assert!(table.contains("key-02 @") && !table.contains("key-03 @") && !table.contains("key-04 @"), "{table}");
        assert!(!answer(format!("{CHURNED} table")).contains("start: 0,"), "it was compacted");
    }
    let names: Vec<_> = contents(&golden()).into_iter().map(|(path, _)| path.display().to_string()).collect();
    for part in ["/store", ".log", "spare-", "witness", "manifest", ".run", ".chunk", "/bucket", ".copy", "starts/"] {
        assert!(names.iter().any(|name| name.contains(part)), "no file like {part}");
    }
}

/// With its bucket, if it has one.
fn sound(root: &Path, options: &Options) {
    match &options.bucket {
        Some(bucket) => super::bucket_care::sound_with(root, bucket),
        None => super::check::sound(root),
    }
}

#[test]
fn golden_directories_of_every_release_are_sound_read_back_exactly_and_go_on() {
    for golden in all() {
        let copied = copy(&golden.directory);
        let options = golden.options();
        sound(copied.path(), &options);
        let mut stepper = Stepper::open(io(&copied), options.clone()).unwrap();
        let answers = ask_all(&mut stepper);
        for (label, expected) in &golden.expected {
            assert_eq!(answers.get(label), Some(expected), "{}: {label}", golden.shown);
        }
        assert_eq!(answers.len(), golden.expected.len());
        // Its writer's number is there, too, and it goes on; so do tables, in what this release makes of the files.
        let mut author = Author { stepper, numbers: BTreeMap::from([(S, 51)]) };
        author.append(S, b"goes on");
        author.put(TABLE, "key-02", Some("goes on".into()));
        author.checkpoint();
        drop(author.stepper.close().unwrap());
        sound(copied.path(), &options);
        let mut stepper = Stepper::open(io(&copied), options).unwrap();
        let after = ask_all(&mut stepper);
        let changed: Vec<_> =
            after.iter().filter(|(label, answer)| golden.expected.get(*label) != Some(answer)).collect();
        assert!(changed.iter().all(|(label, _)| label.starts_with(S) || label.starts_with(TABLE)), "{changed:?}");
        assert_eq!(after[&format!("{S} bytes")], shown(&[stream_bytes(), b"goes on".to_vec()].concat()));
    }
}

/// Opens a damaged copy and looks at everything in it: each answer is the right one or says that bytes are damaged. What
/// a start refuses it has not touched. The error, if it does not start.
#[track_caller]
fn never_wrong(golden: &Golden, copied: &Arc<tempfile::TempDir>, what: &str) -> Option<StoreError> {
    let before = contents(copied.path());
    let mut stepper = match Stepper::open(io(copied), golden.options()) {
        Ok(stepper) => stepper,
        Err(error) => {
            assert!(contents(copied.path()) == before, "{what}: the refused start has changed something");
            return Some(error);
        }
    };
    for (label, answer) in ask_all(&mut stepper) {
        let is_right = answer == "Err(Damaged)" || golden.expected.get(&label) == Some(&answer);
        assert!(is_right, "{what}: {label} is {answer}");
    }
    None
}

/// Files that a store needs, by their path in it; of the journal the oldest, one in the middle and the newest.
fn needed(store: &Path) -> Vec<String> {
    let path = |path: PathBuf| path.strip_prefix(store).unwrap().to_str().unwrap().to_owned();
    let files = super::check::files(store).into_iter().map(path);
    let files = files.filter(|file| file != "journal/witness" && !file.contains("spare-"));
    let (mut logs, mut needed): (Vec<_>, Vec<_>) = files.partition(|file| file.ends_with(".log"));
    needed.push(logs.remove(logs.len() / 2));
    needed.extend([logs.remove(0), logs.pop().expect("every store has many")]);
    needed
}

#[test]
fn golden_directories_of_a_newer_release_are_refused_untouched() {
    for golden in all() {
        for file in needed(&golden.directory) {
            let what = format!("{}, {file} of a newer format", golden.shown);
            let copied = copy(&golden.directory);
            let path = copied.path().join(&file);
            let mut bytes = fs::read(&path).unwrap();
            // Behind eight bytes that say what it is. The rest may be laid out in any way.
            bytes[11] += 1;
            fs::write(&path, &bytes).unwrap();
            match never_wrong(&golden, &copied, &what) {
                Some(StoreError::Newer { path, .. }) => assert_eq!(path, file),
                Some(error) => panic!("{what}: {error}"),
                // A start reads no chunk; whoever wants its bytes does.
                None => assert!(file.ends_with(".chunk"), "{what}: it starts"),
            }
            assert!(fs::read(&path).unwrap() == bytes, "{what} was changed");
            let copied = copy(&golden.directory);
            fs::write(copied.path().join(&file), &bytes).unwrap();
            match super::check::judged(copied.path()) {
                Err(CheckError::Store { source: StoreError::Newer { path, .. }, .. }) => assert_eq!(path, file),
                other => panic!("{what}: {other:?}"),
            }
        }
    }
}

#[test]
fn golden_directories_that_are_cut_are_refused_or_refuse_only_what_was_cut() {
    for golden in all() {
        for file in needed(&golden.directory) {
            let whole = fs::read(golden.directory.join(&file)).unwrap();
            for length in [0, 20, whole.len() / 2, whole.len() - 1] {
                let what = format!("{}, {file} cut to {length} bytes", golden.shown);
                let copied = copy(&golden.directory);
                fs::write(copied.path().join(&file), &whole[..length]).unwrap();
                let (summary, findings) = super::check::judged(copied.path()).unwrap();
                assert!(!summary.is_sound(), "{what}: {findings:?}");
                let named =
                    |one: &headwater_engine::check::Finding| one.severity == Severity::Doubt && one.file == file;
                assert!(findings.iter().any(named), "{what}: {findings:?}");
                match never_wrong(&golden, &copied, &what) {
                    Some(StoreError::Damaged { path, .. } | StoreError::Io { path, .. }) => {
                        assert_eq!(path, file, "{what}")
                    }
                    Some(error) => panic!("{what}: {error}"),
                    None => assert!(file.ends_with(".chunk"), "{what}: it starts"),
                }
            }
        }
    }
}

//! Our table as the kernel holds it, back as the value that was written, and what it has counted.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use felix_calc::host::TABLE;
use felix_calc::plan::SetShape;
use felix_calc::table::{Base, Chain, Element, Hook, Rule, Set, Table};

use super::error::NftError;
use super::keys::{Count, RawElement, ReadElement, assemble, items, read_item, read_shape};
use super::raise::{ReadRule, read_rule};
use super::socket::{Answer, NetfilterSocket};
use super::watch::{Foreign, Watch};
use super::wire::{
    self, TABLE_NAME, chain, element, find, find_be32, find_string, generation, kind, nft_message, rule, set,
    table,
};
use super::write::{chain_type, hook_number};

/// A table that others keep changing is begun again this often.
const ATTEMPTS: usize = 10;
/// A hash that is being resized is listed again after a pause that doubles: for a second in all.
const RESIZE_ATTEMPTS: usize = 16;
const RESIZE_PAUSE: Duration = Duration::from_millis(1);
const RESIZE_PAUSE_LONGEST: Duration = Duration::from_millis(100);

/// What the kernel holds.
#[derive(Debug, Default)]
pub struct Reading {
    /// Whether there is a table at all.
    pub present: bool,
    /// The table. Something that is none of ours stands in it as a thing that no compiler makes: a rule without
    /// statements, a set without a key. So a plan that leads from here to any compiled table replaces it.
    pub table: Table,
    /// Names of what is none of ours, for people.
    pub unknown: Vec<String>,
}

/// What the table has counted since its rules and elements were written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// By chain and place of the rule in it, from 0: rules with a counter (of several, the first).
    pub rules: BTreeMap<(String, usize), Count>,
    /// By set: elements of sets that count.
    pub elements: BTreeMap<String, BTreeMap<Element, Count>>,
}

/// Flags of our table, and the port of the socket that owns it; `None` without a table.
pub(super) fn table_flags(socket: &mut NetfilterSocket) -> Result<Option<(u32, Option<u32>)>, NftError> {
    let mut message = nft_message(kind::GETTABLE, 0);
    message.attribute_str(TABLE_NAME, TABLE);
    let what = format!("read table inet {TABLE}");
    match socket.request(&what, message) {
        Ok(answers) => {
            let answer = answers.first().ok_or(NftError::Malformed { what, missing: "the table" })?;
            let flags = find_be32(answer.attributes(), table::FLAGS).unwrap_or(0);
            Ok(Some((flags, find_be32(answer.attributes(), table::OWNER))))
        }
        Err(error) if error.is(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Number of the last change to any table.
pub(super) fn generation(socket: &mut NetfilterSocket) -> Result<u32, NftError> {
    let what = "read the generation of nftables";
    let answers = socket.request(what, nft_message(kind::GETGEN, 0))?;
    let id = answers.first().and_then(|answer| find_be32(answer.attributes(), generation::ID));
    id.ok_or(NftError::Malformed { what: what.to_owned(), missing: "the generation" })
}

pub(super) fn read(socket: &mut NetfilterSocket) -> Result<Reading, NftError> {
    let Some(listing) = consistent(socket, &Kinds { chains: true, uncounted_sets: true })? else {
        return Ok(Reading::default());
    };
    let mut reading = Reading { present: true, ..Reading::default() };
    for (name, set) in listing.sets {
        let set = set.understand().unwrap_or_else(|| {
            reading.unknown.push(format!("set {name}"));
            unknown_set()
        });
        reading.table.sets.insert(name, set);
    }
    for (name, base) in listing.chains {
        let base = base.unwrap_or_else(|| {
            reading.unknown.push(format!("hook of chain {name}"));
            Some(UNKNOWN_BASE)
        });
        reading.table.chains.insert(name, Chain { base, rules: Vec::new() });
    }
    for (chain, handle, rule) in listing.rules {
        let rule = rule.map_or_else(
            || {
                reading.unknown.push(format!("rule of chain {chain}, handle {handle}"));
                Rule { statements: Vec::new(), comment: Some(format!("unknown rule, handle {handle}")) }
            },
            |read| read.rule,
        );
        reading.table.chains.entry(chain).or_default().rules.push(rule);
    }
    Ok(reading)
}

pub(super) fn counters(socket: &mut NetfilterSocket) -> Result<Counters, NftError> {
    let mut counters = Counters::default();
    let Some(listing) = consistent(socket, &Kinds { chains: false, uncounted_sets: false })? else {
        return Ok(counters);
    };
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    for (chain, _, rule) in listing.rules {
        let place = places.entry(chain.clone()).or_default();
        if let Some(count) = rule.and_then(|read| read.count) {
            counters.rules.insert((chain, *place), count);
        }
        *place += 1;
    }
    for (name, set) in listing.sets {
        let counts =
            set.elements.into_iter().flatten().filter_map(|(element, _, count)| Some((element, count?)));
        let counts: BTreeMap<_, _> = counts.collect();
        if !counts.is_empty() {
            counters.elements.insert(name, counts);
        }
    }
    Ok(counters)
}

/// What a listing is wanted for.
struct Kinds {
    chains: bool,
    /// Elements of sets that do not count.
    uncounted_sets: bool,
}

#[derive(Debug, Default)]
struct Listing {
    sets: BTreeMap<String, ListedSet>,
    /// Inner `Option`: a base chain or not; outer: understood or not.
    chains: BTreeMap<String, Option<Option<Base>>>,
    /// Chain, handle, rule if it is one of ours; in the order of the chain.
    rules: Vec<(String, u64, Option<ReadRule>)>,
}

#[derive(Debug)]
struct ListedSet {
    shape: Option<SetShape>,
    elements: Option<Vec<ReadElement>>,
}

impl ListedSet {
    fn understand(self) -> Option<Set> {
        let SetShape { key, interval, data, counter } = self.shape?;
        let elements = self.elements?.into_iter().map(|(element, data, _)| (element, data)).collect();
        Some(Set { key, interval, data, counter, elements })
    }
}

/// A set with no key: no compiler makes one.
fn unknown_set() -> Set {
    Set { key: Vec::new(), interval: false, data: None, counter: false, elements: BTreeMap::new() }
}

/// A base that no compiler makes.
const UNKNOWN_BASE: Base = Base { hook: Hook::Output, priority: i32::MIN, drop: false };

/// A listing of one moment of our table; `None` without a table.
///
/// It takes many requests. When the generation has moved meanwhile, the watch tells whether that was our table: other
/// users of nftables may be busy all the time and must not starve us.
fn consistent(socket: &mut NetfilterSocket, kinds: &Kinds) -> Result<Option<Listing>, NftError> {
    let mut watch = Watch::open(socket.port())?;
    for _ in 0..ATTEMPTS {
        let before = generation(socket)?;
        if table_flags(socket)?.is_none() {
            return Ok(None);
        }
        let listing = match list(socket, kinds) {
            Ok(listing) => listing,
            // Something went between its listing and the listing of what it holds.
            Err(error) if error.is(libc::ENOENT) => continue,
            Err(NftError::Interrupted { .. }) => continue,
            Err(error) => return Err(error),
        };
        if generation(socket)? == before || watch.look()? == Foreign::Unchanged {
            return Ok(Some(listing));
        }
    }
    Err(NftError::Interrupted { what: format!("read table inet {TABLE}"), attempts: ATTEMPTS })
}

fn list(socket: &mut NetfilterSocket, kinds: &Kinds) -> Result<Listing, NftError> {
    let mut listing = Listing::default();
    if kinds.chains {
        for answer in ours(socket.dump("list chains", &nft_message(kind::GETCHAIN, 0), first_is_ours)?) {
            if let Some(name) = find_string(answer.attributes(), chain::NAME) {
                listing.chains.insert(name, read_base(answer.attributes()));
            }
        }
    }
    let mut request = nft_message(kind::GETRULE, 0);
    request.attribute_str(TABLE_NAME, TABLE);
    for answer in ours(socket.dump("list rules", &request, only_ours)?) {
        let attributes = answer.attributes();
        let handle = find(attributes, rule::HANDLE).and_then(wire::be64_of).unwrap_or(0);
        if let Some(chain) = find_string(attributes, rule::CHAIN) {
            listing.rules.push((chain, handle, read_rule(attributes)));
        }
    }
    let mut request = nft_message(kind::GETSET, 0);
    request.attribute_str(TABLE_NAME, TABLE);
    for answer in ours(socket.dump("list sets", &request, only_ours)?) {
        let Some(name) = find_string(answer.attributes(), set::NAME) else {
            continue;
        };
        let shape = read_shape(answer.attributes());
        let count = find_be32(answer.attributes(), set::COUNT).and_then(|count| usize::try_from(count).ok());
        let elements = match &shape {
            Some(shape) if shape.counter || kinds.uncounted_sets => {
                let raw = if shape.interval {
                    elements_once(socket, &name)?.map(|(raw, _)| raw)
                } else {
                    elements_of_hash(socket, &name, count)?
                };
                raw.and_then(|raw| assemble(shape, raw))
            }
            Some(_) | None => None,
        };
        listing.sets.insert(name, ListedSet { shape, elements });
    }
    Ok(listing)
}

/// All elements of a hash set.
///
/// While the kernel resizes the hash, which it does in the background after many elements came or went, a listing that
/// takes several messages misses some elements and repeats others, and the kernel does not say so. A listing is taken
/// for complete when it has as many elements as the kernel counts, or, where it does not tell, when it is the same twice.
fn elements_of_hash(
    socket: &mut NetfilterSocket,
    name: &str,
    count: Option<usize>,
) -> Result<Option<Vec<RawElement>>, NftError> {
    let mut previous: Option<BTreeSet<Vec<u8>>> = None;
    let mut pause = RESIZE_PAUSE;
    for _ in 0..RESIZE_ATTEMPTS {
        let Some((raw, messages)) = elements_once(socket, name)? else {
            return Ok(None);
        };
        let keys: BTreeSet<_> = raw.iter().map(|element| element.key().to_vec()).collect();
        let complete = match count {
            Some(count) => keys.len() == count,
            None => messages <= 1 || previous.as_ref() == Some(&keys),
        };
        if complete {
            return Ok(Some(raw));
        }
        previous = Some(keys);
        std::thread::sleep(pause);
        pause = (pause * 2).min(RESIZE_PAUSE_LONGEST);
    }
    Err(NftError::Interrupted { what: format!("list elements of {name}"), attempts: RESIZE_ATTEMPTS })
}

/// What one listing shows, and in how many messages; `None` when an element is none of ours.
fn elements_once(
    socket: &mut NetfilterSocket,
    name: &str,
) -> Result<Option<(Vec<RawElement>, usize)>, NftError> {
    let mut request = nft_message(kind::GETSETELEM, 0);
    request.attribute_str(TABLE_NAME, TABLE);
    request.attribute_str(element::LIST_SET, name);
    let answers = socket.dump("list elements", &request, only_ours)?;
    let raw: Option<Vec<_>> =
        answers.iter().flat_map(|answer| items(answer.attributes())).map(read_item).collect();
    Ok(raw.map(|raw| (raw, answers.len())))
}

/// The kernel goes on with a dump at the number of the thing at which it stopped. It counts rules, sets and elements of
/// the table that was asked for, so that other tables' changes do not move the place; whether ours changed, the watch
/// tells.
fn only_ours(_: &[Answer]) -> bool {
    true
}

/// Chains are counted through all tables of the family, in the order in which the tables were made: what comes after
/// ours moves nothing.
fn first_is_ours(answers: &[Answer]) -> bool {
    answers.first().is_some_and(is_ours)
}

fn is_ours(answer: &Answer) -> bool {
    find_string(answer.attributes(), TABLE_NAME).is_some_and(|name| name == TABLE)
}

/// Those of the answers that are about our table.
fn ours(answers: Vec<Answer>) -> impl Iterator<Item = Answer> {
    answers.into_iter().filter(is_ours)
}

/// Where a chain is entered; outer `None`: a hook or a type that we do not use.
fn read_base(attributes: &[u8]) -> Option<Option<Base>> {
    let Some(bytes) = find(attributes, chain::HOOK) else {
        return Some(None);
    };
    let number = find_be32(bytes, chain::HOOK_NUMBER)?;
    let hooks = [Hook::Prerouting, Hook::Input, Hook::Forward, Hook::Output, Hook::Postrouting];
    let hook = hooks.into_iter().find(|hook| hook_number(*hook) == number)?;
    let priority = i32::from_be_bytes(find(bytes, chain::HOOK_PRIORITY)?.try_into().ok()?);
    let drop = match find_be32(attributes, chain::POLICY)? {
        chain::POLICY_DROP => true,
        chain::POLICY_ACCEPT => false,
        _ => return None,
    };
    let base = Base { hook, priority, drop };
    (find_string(attributes, chain::TYPE)? == chain_type(&base)).then_some(Some(base))
}

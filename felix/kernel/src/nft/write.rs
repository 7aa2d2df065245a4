//! A transaction as one batch of messages, and the kernel's refusal of a message as the operation it came from.

use felix_calc::host::TABLE;
use felix_calc::plan::{Operation, Transaction};
use felix_calc::table::{Base, Data, Element, Hook, Rule};

use super::error::NftError;
use super::keys::{put_element, put_shape};
use super::lower::put_rule;
use super::socket::{Frame, NetfilterSocket, Outcome};
use super::wire::{
    APPEND, BATCH_BEGIN, BATCH_END, CREATE, NetfilterMessage, TABLE_NAME, batch_frame, chain, element, kind,
    nft_message, rule, set, table,
};
use crate::netlink::Refusal;
use crate::wire::{Message, NLM_F_ACK};

/// An attribute's length has 16 bits; a message of elements is closed when its list reaches this, and an element is
/// far shorter than what is left.
const LIST_BYTES: usize = 60_000;
/// Kernel limit of the names of chains and sets, and of nft's.
const NAME_BYTES: usize = 255;
/// Where nft and everybody else do source NAT: a base chain there is of type `nat`, all others `filter`.
const PRIORITY_SOURCE_NAT: i32 = 100;

pub(super) fn hook_number(hook: Hook) -> u32 {
    match hook {
        Hook::Prerouting => 0,
        Hook::Input => 1,
        Hook::Forward => 2,
        Hook::Output => 3,
        Hook::Postrouting => 4,
    }
}

/// Type of a base chain, which decides whether it may translate addresses.
pub(super) fn chain_type(base: &Base) -> &'static str {
    if base.hook == Hook::Postrouting && base.priority == PRIORITY_SOURCE_NAT { "nat" } else { "filter" }
}

/// Commits all of `transaction`, or nothing. `table_flags` are those that the table has, or gets if it is gone.
pub(super) fn commit(
    socket: &mut NetfilterSocket,
    table_flags: u32,
    transaction: &Transaction,
) -> Result<(), NftError> {
    let mut batch = Batch::begin(socket);
    let mut create = nft_message(kind::NEWTABLE, CREATE);
    create.attribute_str(TABLE_NAME, TABLE);
    create.be32(table::FLAGS, table_flags);
    batch.push(create, None);
    for (index, operation) in transaction.0.iter().enumerate() {
        batch.operation(index, operation)?;
    }
    batch.send(socket, transaction)
}

/// A transaction of this one message.
pub(super) fn single(socket: &mut NetfilterSocket, what: &str, message: Message) -> Result<(), NftError> {
    let mut batch = Batch::begin(socket);
    batch.push(message, None);
    match batch.send(socket, &Transaction::default()) {
        Err(NftError::Refused { refusal, .. }) => Err(NftError::Refused { what: what.to_owned(), refusal }),
        outcome => outcome,
    }
}

/// Deletes the table with all it holds; without one, nothing.
pub(super) fn delete_table(socket: &mut NetfilterSocket) -> Result<(), NftError> {
    let mut delete = nft_message(kind::DELTABLE, 0);
    delete.attribute_str(TABLE_NAME, TABLE);
    match single(socket, &format!("delete table inet {TABLE}"), delete) {
        Err(error) if error.is(libc::ENOENT) => Ok(()),
        outcome => outcome,
    }
}

/// Which part of an operation a message is.
#[derive(Clone, Copy, Debug)]
struct Step {
    operation: usize,
    part: Part,
}

#[derive(Clone, Copy, Debug)]
enum Part {
    Whole,
    /// The rule at this place of the new list.
    Rule(usize),
    /// Elements from this one on; their list begins at this byte of the message.
    Elements {
        first: usize,
        list: usize,
    },
}

/// Messages of one transaction under construction. Message 0 is the opening frame.
#[derive(Debug)]
struct Batch {
    sequence: u32,
    bytes: Vec<u8>,
    /// Per message behind the opening frame; `None` is about the table.
    steps: Vec<Option<Step>>,
    sets: u32,
    last: Option<Message>,
}

impl Batch {
    fn begin(socket: &mut NetfilterSocket) -> Self {
        let sequence = socket.take_sequences(0);
        let mut bytes = Vec::new();
        batch_frame(BATCH_BEGIN).finish_into(sequence, &mut bytes);
        Self { sequence, bytes, steps: Vec::new(), sets: 0, last: None }
    }

    fn push(&mut self, message: Message, step: Option<Step>) {
        self.flush_last();
        self.last = Some(message);
        self.steps.push(step);
    }

    /// The last message is held back: it is the one that asks for an acknowledgement.
    fn flush_last(&mut self) {
        if let Some(message) = self.last.take() {
            let sequence = self.sequence.wrapping_add(count(self.steps.len()));
            message.finish_into(sequence, &mut self.bytes);
        }
    }

    fn operation(&mut self, index: usize, operation: &Operation) -> Result<(), NftError> {
        let whole = Some(Step { operation: index, part: Part::Whole });
        match operation {
            Operation::AddSet { name, shape } => {
                let mut message = named(kind::NEWSET, CREATE, set::NAME, name)?;
                // Any number that no other set of the batch has.
                self.sets += 1;
                message.be32(set::ID, self.sets);
                put_shape(&mut message, name, shape)?;
                self.push(message, whole);
            }
            Operation::AddChain { name, base } => {
                let mut message = named(kind::NEWCHAIN, CREATE, chain::NAME, name)?;
                if let Some(base) = base {
                    put_base(&mut message, base);
                }
                self.push(message, whole);
            }
            Operation::AddElements { set, elements } => {
                let elements = elements.iter().map(|(element, data)| (element, data.as_ref()));
                self.elements(kind::NEWSETELEM, CREATE, index, set, elements)?;
            }
            Operation::DeleteElements { set, elements } => {
                let elements = elements.iter().map(|element| (element, None));
                self.elements(kind::DELSETELEM, 0, index, set, elements)?;
            }
            Operation::ReplaceRules { chain, rules } => self.replace_rules(index, chain, rules)?,
            Operation::DeleteSet { name } => self.push(named(kind::DELSET, 0, set::NAME, name)?, whole),
            Operation::DeleteChain { name } => self.push(named(kind::DELCHAIN, 0, chain::NAME, name)?, whole),
        }
        Ok(())
    }

    fn replace_rules(&mut self, index: usize, chain: &str, rules: &[Rule]) -> Result<(), NftError> {
        // Without a handle: all rules of the chain.
        self.push(
            named(kind::DELRULE, 0, rule::CHAIN, chain)?,
            Some(Step { operation: index, part: Part::Whole }),
        );
        for (place, rule) in rules.iter().enumerate() {
            let mut message = named(kind::NEWRULE, APPEND, rule::CHAIN, chain)?;
            put_rule(&mut message, rule)?;
            self.push(message, Some(Step { operation: index, part: Part::Rule(place) }));
        }
        Ok(())
    }

    fn elements<'a>(
        &mut self,
        kind: u16,
        flags: u16,
        index: usize,
        set: &str,
        elements: impl Iterator<Item = (&'a Element, Option<&'a Data>)>,
    ) -> Result<(), NftError> {
        let mut rest = elements.enumerate().peekable();
        while let Some((first, _)) = rest.peek().copied() {
            let mut message = named(kind, flags, element::LIST_SET, set)?;
            let list = message.len() + 4; // behind the attribute's own header
            let mut outcome = Ok(());
            message.nest(element::LIST_ELEMENTS, |message| {
                while let (true, Some((_, (element, data)))) =
                    (message.len() < list + LIST_BYTES, rest.peek())
                {
                    outcome = put_element(message, element, *data);
                    if outcome.is_err() {
                        return;
                    }
                    rest.next();
                }
            });
            outcome?;
            self.push(message, Some(Step { operation: index, part: Part::Elements { first, list } }));
        }
        Ok(())
    }

    /// The kernel works the batch off inside the send; then all refusals are there, in front of the acknowledgement.
    fn send(mut self, socket: &mut NetfilterSocket, transaction: &Transaction) -> Result<(), NftError> {
        if let Some(message) = &mut self.last {
            message.add_flags(NLM_F_ACK);
        }
        self.flush_last();
        let acknowledged = count(self.steps.len());
        let messages = acknowledged.wrapping_add(2);
        let end = self.sequence.wrapping_add(messages.wrapping_sub(1));
        batch_frame(BATCH_END).finish_into(end, &mut self.bytes);
        let first = socket.take_sequences(messages);
        let what = "nftables transaction";
        let frame = Frame { first, messages, acknowledged, bytes: &self.bytes };
        let outcomes = socket.send_frame(what, &frame, |_| {})?;
        // An acknowledgement only says that its own message was fine: any refusal has aborted the batch.
        let refused = outcomes
            .into_iter()
            .find_map(|Outcome { index, refusal, offset }| Some((index, refusal?, offset)));
        match refused {
            None => Ok(()),
            Some((index, refusal, offset)) => Err(self.explain(index, refusal, offset, transaction)),
        }
    }

    fn explain(
        &self,
        message: u32,
        refusal: Refusal,
        offset: Option<usize>,
        transaction: &Transaction,
    ) -> NftError {
        let step = usize::try_from(message).ok().and_then(|message| message.checked_sub(1));
        let step = step.and_then(|index| self.steps.get(index).copied()).flatten();
        let operation = step.and_then(|step| transaction.0.get(step.operation));
        match (step, operation) {
            (Some(Step { operation: index, part }), Some(operation)) => {
                NftError::Operation { index, step: describe(operation, part, offset), refusal }
            }
            (_, _) => NftError::Refused { what: format!("table inet {TABLE}"), refusal },
        }
    }
}

fn describe(operation: &Operation, part: Part, offset: Option<usize>) -> String {
    match operation {
        Operation::AddSet { name, .. } => format!("add set {name}"),
        Operation::AddChain { name, .. } => format!("add chain {name}"),
        Operation::AddElements { set, elements } => {
            let elements = elements.iter().map(|(element, data)| (element, data.as_ref()));
            format!("add to set {set}: {}", which(elements, part, offset))
        }
        Operation::DeleteElements { set, elements } => {
            let elements = elements.iter().map(|element| (element, None));
            format!("delete from set {set}: {}", which(elements, part, offset))
        }
        Operation::ReplaceRules { chain, rules } => match part {
            Part::Rule(place) => match rules.get(place).and_then(|rule| rule.comment.as_deref()) {
                Some(comment) => format!("rule {place} ({comment}) of chain {chain}"),
                None => format!("rule {place} of chain {chain}"),
            },
            Part::Whole | Part::Elements { .. } => format!("flush chain {chain}"),
        },
        Operation::DeleteSet { name } => format!("delete set {name}"),
        Operation::DeleteChain { name } => format!("delete chain {name}"),
    }
}

/// Which of the elements the kernel means.
fn which<'a>(
    elements: impl Iterator<Item = (&'a Element, Option<&'a Data>)>,
    part: Part,
    offset: Option<usize>,
) -> String {
    let Part::Elements { first, list } = part else {
        return "elements".to_owned();
    };
    let offset = offset.and_then(|offset| offset.checked_sub(list));
    let element = offset.and_then(|offset| element_at(elements.skip(first), offset));
    element.unwrap_or_else(|| format!("one of the elements from number {first} on"))
}

/// The element whose items cover this byte of their list.
fn element_at<'a>(
    elements: impl Iterator<Item = (&'a Element, Option<&'a Data>)>,
    offset: usize,
) -> Option<String> {
    let mut list = Message::new(0, 0);
    let start = list.len();
    for (element, data) in elements {
        put_element(&mut list, element, data).ok()?;
        if list.len() - start > offset {
            return Some(super::render::element_text(element));
        }
    }
    None
}

/// A message about something of our table.
fn named(kind: u16, flags: u16, attribute: u16, name: &str) -> Result<Message, NftError> {
    if name.is_empty() || name.len() > NAME_BYTES || name.contains('\0') {
        return Err(NftError::unsupported(
            format!("name {name:?}"),
            "1 to 255 bytes without a zero are expected",
        ));
    }
    let mut message = nft_message(kind, flags);
    message.attribute_str(TABLE_NAME, TABLE);
    message.attribute_str(attribute, name);
    Ok(message)
}

fn put_base(message: &mut Message, base: &Base) {
    message.nest(chain::HOOK, |hook| {
        hook.be32(chain::HOOK_NUMBER, hook_number(base.hook));
        hook.attribute(chain::HOOK_PRIORITY, &base.priority.to_be_bytes());
    });
    message.be32(chain::POLICY, if base.drop { chain::POLICY_DROP } else { chain::POLICY_ACCEPT });
    message.attribute_str(chain::TYPE, chain_type(base));
}

fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

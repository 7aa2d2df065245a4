//! `table inet manx`: written, read back, watched and counted by raw netlink.
//!
//! ```text
//! Transaction ──write──▶ one batch ──▶ kernel ──read──▶ Table    equal to what was written
//!    Rule ──lower──▶ expressions              ──raise──▶ Rule
//!    Element ──keys──▶ bytes                  ──keys──▶ Element
//! Table ──render──▶ the JSON of `nft -j`, for people
//! ```
//! All calls block: a transaction for as long as the kernel works on it, everything else for at most
//! [`TIMEOUT`] per answer. From tokio, call them on a thread of their own or through `spawn_blocking`; a
//! [`Watch`] is readable like any socket and never blocks.
//!
//! A [`PolicyTable`] acts in the network namespace in which it was opened. It must be kept open: where the kernel can
//! (Linux 6.9), its socket owns the table, so that nobody else can change it, and the table outlives the socket, so that
//! the next process adopts it as it is.

mod error;
mod keys;
mod lower;
mod raise;
mod read;
mod render;
pub(crate) mod socket;
mod watch;
pub(crate) mod wire;
mod write;

use felix_calc::host::TABLE;
use felix_calc::plan::Transaction;

pub use self::error::NftError;
pub use self::keys::Count;
pub use self::read::{Counters, Reading};
pub use self::render::render;
pub use self::socket::TIMEOUT;
pub use self::watch::{Foreign, Watch};

use self::socket::NetfilterSocket;
use self::wire::{CREATE, NetfilterMessage, TABLE_NAME, kind, nft_message, table};

/// Who may change our table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    /// Only this handle; others' flushes pass it by. It stays when the handle goes.
    Owned,
    /// Everybody with CAP_NET_ADMIN: an older kernel, or a table that somebody made without an owner.
    Open,
}

/// Our table in the kernel.
#[derive(Debug)]
pub struct PolicyTable {
    socket: NetfilterSocket,
    protection: Protection,
}

impl PolicyTable {
    /// Opens the table: adopts the one that a process before us left, or creates an empty one.
    ///
    /// ```text
    ///   none ──────────────────────────▶ created, owned; open where the kernel knows no owner that persists
    ///   persistent, its owner gone ────▶ adopted, owned: contents untouched, no packet sees a difference
    ///   persistent, its owner alive ───▶ NftError::Owned
    ///   without owner ─────────────────▶ used as it is, open
    /// ```
    /// nft before 1.1 does not know that a table may persist: its text listings are fine, but `nft -j list ruleset`
    /// reads beyond an array and prints no valid JSON. [`PolicyTable::open_unprotected`] avoids that.
    pub fn open() -> Result<Self, NftError> {
        Self::open_as(Protection::Owned)
    }

    /// As [`PolicyTable::open`], but a new table gets no owner: anybody's `nft flush ruleset` removes it.
    pub fn open_unprotected() -> Result<Self, NftError> {
        Self::open_as(Protection::Open)
    }

    fn open_as(wanted: Protection) -> Result<Self, NftError> {
        let mut socket = NetfilterSocket::open()?;
        let protection = match read::table_flags(&mut socket)? {
            Some((flags, owner)) if flags & table::FLAG_OWNER != 0 => {
                return Err(NftError::Owned { port: owner.unwrap_or(0) });
            }
            Some((flags, _)) if flags & table::FLAG_PERSIST == 0 => Protection::Open,
            // A table keeps the flag for life, so it is adopted whatever is wanted.
            Some(_) => create(&mut socket, Protection::Owned)?,
            None => create(&mut socket, wanted)?,
        };
        Ok(Self { socket, protection })
    }

    /// Deletes the table that no living process owns; whether there was one.
    pub fn remove() -> Result<bool, NftError> {
        let mut socket = NetfilterSocket::open()?;
        match read::table_flags(&mut socket)? {
            None => Ok(false),
            Some((flags, owner)) if flags & table::FLAG_OWNER != 0 => {
                Err(NftError::Owned { port: owner.unwrap_or(0) })
            }
            Some(_) => write::delete_table(&mut socket).map(|()| true),
        }
    }

    /// Who may change the table.
    pub fn protection(&self) -> Protection {
        self.protection
    }

    /// Puts all of the transaction into force at one moment, or nothing of it. Creates the table if it is gone.
    ///
    /// After [`NftError::Timeout`] or [`NftError::AnswerLost`] it is unknown whether it is in force; after any other
    /// error it is not.
    pub fn commit(&mut self, transaction: &Transaction) -> Result<(), NftError> {
        if transaction.0.is_empty() {
            return Ok(());
        }
        write::commit(&mut self.socket, flags(self.protection), transaction)
    }

    /// Reads the table back. What is none of ours is named and stands in for itself: see [`Reading`].
    pub fn read(&mut self) -> Result<Reading, NftError> {
        read::read(&mut self.socket)
    }

    /// Reads what rules and elements have counted.
    pub fn counters(&mut self) -> Result<Counters, NftError> {
        read::counters(&mut self.socket)
    }

    /// Number of the last change to any table on the host.
    pub fn generation(&mut self) -> Result<u32, NftError> {
        read::generation(&mut self.socket)
    }

    /// Hears from now on of what others do to the table.
    pub fn watch(&self) -> Result<Watch, NftError> {
        Watch::open(self.socket.port())
    }

    /// Deletes the table with all it holds. The handle can make it again.
    pub fn delete(&mut self) -> Result<(), NftError> {
        write::delete_table(&mut self.socket)
    }
}

fn flags(protection: Protection) -> u32 {
    match protection {
        Protection::Owned => table::FLAG_OWNER | table::FLAG_PERSIST,
        Protection::Open => 0,
    }
}

/// Creates the table or takes over a persistent one, with the best protection that the kernel has.
fn create(socket: &mut NetfilterSocket, wanted: Protection) -> Result<Protection, NftError> {
    match create_with(socket, wanted) {
        // Linux before 6.9 knows no table that outlives its owner, and before 5.12 no owner.
        Err(error) if error.is(libc::EOPNOTSUPP) || error.is(libc::EINVAL) => {
            create_with(socket, Protection::Open)
        }
        // Somebody was faster.
        Err(error) if error.is(libc::EPERM) => match read::table_flags(socket)? {
            Some((_, Some(port))) => Err(NftError::Owned { port }),
            Some((_, None)) | None => Err(error),
        },
        outcome => outcome,
    }
}

fn create_with(socket: &mut NetfilterSocket, protection: Protection) -> Result<Protection, NftError> {
    let mut message = nft_message(kind::NEWTABLE, CREATE);
    message.attribute_str(TABLE_NAME, TABLE);
    message.be32(table::FLAGS, flags(protection));
    write::single(socket, &format!("create table inet {TABLE}"), message)?;
    Ok(protection)
}

//! `setsockopt` and `getsockopt` for plain values: the options that no crate wraps.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Values the kernel may read or fill byte by byte.
///
/// # Safety
/// The type has no padding that matters and every bit pattern is a valid value.
pub(crate) unsafe trait Plain: Copy {}

// SAFETY: integers have no invalid bit patterns.
unsafe impl Plain for i32 {}
// SAFETY: integers have no invalid bit patterns.
unsafe impl Plain for u32 {}

/// Sets one option.
pub(crate) fn set<T: Plain>(
    fd: BorrowedFd<'_>,
    level: libc::c_int,
    option: libc::c_int,
    value: &T,
) -> io::Result<()> {
    let length =
        libc::socklen_t::try_from(size_of::<T>()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    // SAFETY: `value` is borrowed for the call and `length` is its size; the kernel only reads it.
    let result =
        unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, std::ptr::from_ref(value).cast(), length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Reads one option into `value`, which gives its size.
pub(crate) fn get<T: Plain>(
    fd: BorrowedFd<'_>,
    level: libc::c_int,
    option: libc::c_int,
    mut value: T,
) -> io::Result<T> {
    let mut length =
        libc::socklen_t::try_from(size_of::<T>()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    // SAFETY: `value` lives through the call, `length` is its size and the kernel writes no more than that; any bit
    // pattern is a valid `T` (Plain).
    let result = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            level,
            option,
            std::ptr::from_mut(&mut value).cast(),
            &raw mut length,
        )
    };
    if result == 0 { Ok(value) } else { Err(io::Error::last_os_error()) }
}

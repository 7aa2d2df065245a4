//! The end of the process, asked for by a signal.

use std::io;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal as listen};
use tokio::sync::oneshot;

/// A stop that takes longer is cut off: what must survive is in the kernel and on disk at any moment.
const LIMIT: Duration = Duration::from_secs(10);

/// Fires at SIGTERM or SIGINT.
///
/// # Errors
/// Where signals cannot be listened for.
pub fn signal() -> io::Result<oneshot::Receiver<()>> {
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    let (stop, stopped) = oneshot::channel();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        // The loop is gone already when nobody listens.
        let _ = stop.send(());
        tokio::time::sleep(LIMIT).await;
        tracing::error!("the stop took longer than {}s", LIMIT.as_secs());
        std::process::exit(1);
    });
    Ok(stopped)
}

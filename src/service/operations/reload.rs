//! Asks whoever knows the configuration to read it anew.

use tokio::sync::{mpsc, oneshot};

use crate::core::command::operation::Reloaded;
use crate::core::refusal::Refusal;

/// How many wait for it: operators are few.
const WAITING_MAX: usize = 8;

/// Somebody wants the configuration to be read anew, and waits for what comes of it.
pub type Asked = oneshot::Sender<Reloaded>;

/// Where to ask for it.
#[derive(Clone)]
pub struct Reloads(mpsc::Sender<Asked>);

impl Reloads {
    /// The two ends.
    pub fn new() -> (Self, mpsc::Receiver<Asked>) {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        (Self(sender), receiver)
    }

    /// Asks, and waits. Refuses `Broken` where nobody is there to do it.
    pub(super) async fn ask(&self) -> Result<Reloaded, Refusal> {
        let (answer, answered) = oneshot::channel();
        let asked = self.0.send(answer).await;
        asked.map_err(|_| Refusal::Broken)?;
        answered.await.map_err(|_| Refusal::Broken)
    }
}

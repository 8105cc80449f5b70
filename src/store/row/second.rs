//! The second shape of a row, which is today's: with what an upload session needs.

use serde::{Deserialize, Serialize};

use crate::core::session::network::Network;
use crate::core::session::{Agreement, FailReason, State, UploadSession};
use crate::core::slot::{SessionId, Sha256};
use crate::core::time::Timestamp;
use crate::store::row::first;

/// A row of the first shape, and what was added.
#[derive(Serialize, Deserialize)]
pub(super) struct Row {
    first: first::Row<RowState>,
    agreement: RowAgreement,
    expected: Option<[u8; 32]>,
    refreshed_at: u64,
    reissues: u8,
    is_presented: bool,
    networks: Vec<RowNetwork>,
    is_held_back: bool,
    n_attempts: u16,
}

#[derive(Serialize, Deserialize)]
enum RowAgreement {
    Slot,
    Resumable,
    Session(u128),
    External { is_resumable: bool },
}

#[derive(Serialize, Deserialize)]
struct RowNetwork {
    at: u64,
    address: Option<String>,
    agent: Option<String>,
}

#[derive(Serialize, Deserialize)]
pub(super) enum RowState {
    Pending,
    Uploading,
    Complete { sha256: [u8; 32], at: u64 },
    Failed(RowReason),
    Cancelled,
    Expired,
}

#[derive(Serialize, Deserialize)]
pub(super) enum RowReason {
    DigestMismatch,
    SizeMismatch,
    Policy,
}

impl From<&UploadSession> for Row {
    fn from(session: &UploadSession) -> Self {
        Self {
            first: session.into(),
            agreement: session.agreement.into(),
            expected: session.expected.map(|sha256| sha256.0),
            refreshed_at: session.refreshed_at.0,
            reissues: session.reissues,
            is_presented: session.is_presented,
            networks: session.networks.iter().map(RowNetwork::from).collect(),
            is_held_back: session.is_held_back,
            n_attempts: session.n_attempts,
        }
    }
}

impl Row {
    pub(super) fn into_session(self) -> Option<UploadSession> {
        Some(UploadSession {
            agreement: self.agreement.into(),
            expected: self.expected.map(Sha256),
            refreshed_at: Timestamp(self.refreshed_at),
            reissues: self.reissues,
            is_presented: self.is_presented,
            networks: self.networks.into_iter().map(Network::from).collect(),
            is_held_back: self.is_held_back,
            n_attempts: self.n_attempts,
            ..self.first.into_session()?
        })
    }
}

impl From<&Network> for RowNetwork {
    fn from(network: &Network) -> Self {
        Self {
            at: network.at.0,
            address: network.address.clone(),
            agent: network.agent.clone(),
        }
    }
}

impl From<RowNetwork> for Network {
    fn from(network: RowNetwork) -> Self {
        Self {
            at: Timestamp(network.at),
            address: network.address,
            agent: network.agent,
        }
    }
}

impl From<Agreement> for RowAgreement {
    fn from(agreement: Agreement) -> Self {
        match agreement {
            Agreement::Slot => Self::Slot,
            Agreement::Resumable => Self::Resumable,
            Agreement::Session(id) => Self::Session(id.0),
            Agreement::External { is_resumable } => Self::External { is_resumable },
        }
    }
}

impl From<RowAgreement> for Agreement {
    fn from(agreement: RowAgreement) -> Self {
        match agreement {
            RowAgreement::Slot => Self::Slot,
            RowAgreement::Resumable => Self::Resumable,
            RowAgreement::Session(id) => Self::Session(SessionId(id)),
            RowAgreement::External { is_resumable } => Self::External { is_resumable },
        }
    }
}

impl From<FailReason> for RowReason {
    fn from(reason: FailReason) -> Self {
        match reason {
            FailReason::DigestMismatch => Self::DigestMismatch,
            FailReason::SizeMismatch => Self::SizeMismatch,
            FailReason::Policy => Self::Policy,
        }
    }
}

impl From<RowReason> for FailReason {
    fn from(reason: RowReason) -> Self {
        match reason {
            RowReason::DigestMismatch => Self::DigestMismatch,
            RowReason::SizeMismatch => Self::SizeMismatch,
            RowReason::Policy => Self::Policy,
        }
    }
}

impl From<State> for RowState {
    fn from(state: State) -> Self {
        match state {
            State::Pending => Self::Pending,
            State::Uploading => Self::Uploading,
            State::Complete { sha256, at } => Self::Complete {
                sha256: sha256.0,
                at: at.0,
            },
            State::Failed(reason) => Self::Failed(reason.into()),
            State::Cancelled => Self::Cancelled,
            State::Expired => Self::Expired,
        }
    }
}

impl From<RowState> for State {
    fn from(state: RowState) -> Self {
        match state {
            RowState::Pending => Self::Pending,
            RowState::Uploading => Self::Uploading,
            RowState::Complete { sha256, at } => Self::Complete {
                sha256: Sha256(sha256),
                at: Timestamp(at),
            },
            RowState::Failed(reason) => Self::Failed(reason.into()),
            RowState::Cancelled => Self::Cancelled,
            RowState::Expired => Self::Expired,
        }
    }
}

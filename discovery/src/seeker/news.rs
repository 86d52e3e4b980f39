//! Events of a device, not handed out yet. One input makes at most three; who does not drain gets the newest of each.

use crate::event::SeekerEvent;

/// Room for one event of each sort, told in this order.
#[derive(Debug)]
pub(super) struct News {
    lost: Option<SeekerEvent>,
    left: Option<SeekerEvent>,
    found: Option<SeekerEvent>,
    registered: Option<SeekerEvent>,
    refused: Option<SeekerEvent>,
}

impl News {
    pub(super) const fn new() -> Self {
        Self { lost: None, left: None, found: None, registered: None, refused: None }
    }

    pub(super) const fn push(&mut self, event: SeekerEvent) {
        let place = match event {
            SeekerEvent::ServerLost { .. } => &mut self.lost,
            SeekerEvent::ServerLeft { .. } => &mut self.left,
            SeekerEvent::ServerFound { .. } => &mut self.found,
            SeekerEvent::Registered { .. } => &mut self.registered,
            SeekerEvent::Refused { .. } => &mut self.refused,
            // Candidates keep their own.
            SeekerEvent::CandidateFound { .. }
            | SeekerEvent::CandidateChanged { .. }
            | SeekerEvent::CandidateGone { .. } => return,
        };
        *place = Some(event);
        // What was found before it was lost is old news.
        if matches!(event, SeekerEvent::ServerLost { .. } | SeekerEvent::ServerLeft { .. }) {
            (self.found, self.registered, self.refused) = (None, None, None);
        }
    }

    pub(super) const fn take(&mut self) -> Option<SeekerEvent> {
        match self {
            Self { lost: place @ Some(_), .. }
            | Self { left: place @ Some(_), .. }
            | Self { found: place @ Some(_), .. }
            | Self { registered: place @ Some(_), .. }
            | Self { refused: place, .. } => place.take(),
        }
    }
}

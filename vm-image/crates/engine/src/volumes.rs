//! Volumes as the engine uses them: errors in the engine's terms, volumes as clients see them, events.

use std::collections::BTreeMap;

use caisson_docker_api::volume::{UsageData, Volume as Told};
use caisson_volumes::{DRIVER, ErrorKind as VolumeErrorKind, Volume, VolumeError};
use time::format_description::well_known::Rfc3339;

use crate::error::{ApiError, ErrorKind, chain};
use crate::events::Events;

/// An error of the volumes, for a client.
pub(crate) fn error(error: &VolumeError) -> ApiError {
    let kind = match error.kind() {
        VolumeErrorKind::NotFound => ErrorKind::NotFound,
        VolumeErrorKind::Conflict => ErrorKind::Conflict,
        VolumeErrorKind::Invalid => ErrorKind::InvalidParameter,
        VolumeErrorKind::Internal => ErrorKind::Internal,
    };
    ApiError::new(kind, chain(error))
}

/// A volume as clients see it.
pub(crate) fn told(volume: Volume, usage_data: Option<UsageData>) -> Told {
    let created = volume.created.replace_nanosecond(0).unwrap_or(volume.created);
    Told {
        created_at: created.format(&Rfc3339).unwrap_or_default(),
        driver: DRIVER.into(),
        labels: volume.labels,
        mountpoint: volume.path.display().to_string(),
        name: volume.name,
        options: volume.options,
        scope: "local".into(),
        usage_data,
    }
}

/// Tells of a volume.
pub(crate) fn tell(events: &Events, action: &str, name: &str, more: &[(&str, String)]) {
    let mut attributes = BTreeMap::from([("driver".to_owned(), DRIVER.to_owned())]);
    attributes.extend(more.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
    events.publish("volume", action, name, attributes);
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn why_a_device_was_not_mounted_is_told_once() {
        let failed = VolumeError::Mount {
            path: "/v".into(),
            device: "//host/share".into(),
            how: ", data: vers=3.0".into(),
            reason: io::Error::from_raw_os_error(13),
        };
        assert_eq!(
            error(&failed).message,
            "error while mounting volume '/v': failed to mount local volume: mount //host/share:/v, data: vers=3.0: permission denied"
        );
    }
}

//! The user that the server runs as.

use std::ffi::CString;
use std::io;

use nix::unistd::{User, getgrouplist};
use rustix::process::{Gid, Uid, geteuid, getuid};
use rustix::thread::{
    CapabilitySet, capabilities, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};
use thiserror::Error;

/// A user's ids, looked up while files could still be read.
#[derive(Debug)]
pub(super) struct Identity {
    name: String,
    uid: Uid,
    gid: Gid,
    groups: Vec<Gid>,
}

/// Why the process cannot become a user.
#[derive(Debug, Error)]
pub enum UserError {
    /// There is no such user.
    #[error(
        "--user {0}: there is no such user (`useradd --system --no-create-home {0}` makes one)"
    )]
    Unknown(String),
    /// The system's list of users cannot be read.
    #[error("--user {name}: cannot look it up: {source}")]
    LookUp {
        /// The user.
        name: String,
        /// What libc said.
        source: io::Error,
    },
    /// The process may not change its ids.
    #[error(
        "--user {name}: {missing} missing; start as root, or as {name} with the capabilities that the \
         stack needs (as the systemd unit does)"
    )]
    Privileges {
        /// The user.
        name: String,
        /// The capabilities, separated by commas.
        missing: String,
    },
    /// The kernel refused in spite of the capabilities.
    #[error("--user {name}: {call}: {source}; in a container, the user must be mapped into it")]
    Refused {
        /// The user.
        name: String,
        /// The call that failed.
        call: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

impl Identity {
    /// The ids of the user called `name`, or `None` if the process has them already.
    pub fn of(name: &str) -> Result<Option<Self>, UserError> {
        let look_up = |errno: nix::Error| UserError::LookUp {
            name: name.to_owned(),
            source: errno.into(),
        };
        let user = User::from_name(name).map_err(look_up)?;
        let user = user.ok_or_else(|| UserError::Unknown(name.to_owned()))?;
        let uid = Uid::from_raw(user.uid.as_raw());
        if getuid() == uid && geteuid() == uid {
            return Ok(None);
        }
        check_privileges(name)?;
        let c_name = CString::new(name).map_err(|_| UserError::Unknown(name.to_owned()))?;
        let groups = getgrouplist(&c_name, user.gid).map_err(look_up)?;
        Ok(Some(Identity {
            name: name.to_owned(),
            uid,
            gid: Gid::from_raw(user.gid.as_raw()),
            groups: groups
                .iter()
                .map(|group| Gid::from_raw(group.as_raw()))
                .collect(),
        }))
    }

    /// Makes them the calling thread's. The user comes last: it takes the right to change the groups.
    pub fn assume(&self) -> Result<(), UserError> {
        let refused = |call| {
            move |errno: rustix::io::Errno| UserError::Refused {
                name: self.name.clone(),
                call,
                source: errno.into(),
            }
        };
        let (uid, gid) = (self.uid, self.gid);
        set_thread_groups(&self.groups).map_err(refused("setgroups"))?;
        set_thread_res_gid(gid, gid, gid).map_err(refused("setresgid"))?;
        set_thread_res_uid(uid, uid, uid).map_err(refused("setresuid"))
    }

    /// The user id.
    pub fn uid(&self) -> u32 {
        self.uid.as_raw()
    }
}

fn check_privileges(name: &str) -> Result<(), UserError> {
    let Ok(sets) = capabilities(None) else {
        return Ok(());
    };
    let needed = [
        ("CAP_SETUID", CapabilitySet::SETUID),
        ("CAP_SETGID", CapabilitySet::SETGID),
    ];
    let missing: Vec<_> = needed
        .iter()
        .filter(|(_, wanted)| !sets.effective.contains(*wanted))
        .map(|(name, _)| *name)
        .collect();
    match missing.is_empty() {
        true => Ok(()),
        false => Err(UserError::Privileges {
            name: name.to_owned(),
            missing: missing.join(", "),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_user_is_named_with_the_command_that_makes_it() {
        for name in ["no-such-user", ""] {
            let error = Identity::of(name).unwrap_err();
            assert!(matches!(&error, UserError::Unknown(unknown) if unknown == name));
            assert!(error.to_string().contains("useradd"), "{error}");
        }
    }

    #[test]
    fn nobody_has_to_become_who_it_is() {
        let me = User::from_uid(nix::unistd::getuid()).unwrap().unwrap();
        assert!(Identity::of(&me.name).unwrap().is_none());
    }
}

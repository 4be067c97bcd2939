//! What is tried, in which order.

use std::net::SocketAddr;

use rustix::process::Signal;

use super::check::{Check, Expect, Family, Proto};
use super::rate::Rate;
use super::report::Report;
use super::world::{Host, PUBLISHED, World};
use crate::cli::output::Failure;
use crate::control::model::NetworkUpdate;
use crate::io::process::SignalFd;

/// Some checks under a title.
struct Chapter<'a> {
    title: &'static str,
    /// Networks that are opened to one another before.
    open: &'static [&'static str],
    checks: Vec<Check<'a>>,
}

/// Tells it all; or the signal that ended it early.
pub(super) fn tell(
    world: &World,
    report: &mut Report,
    signals: &SignalFd,
) -> Result<Option<Signal>, Failure> {
    for chapter in chapters(world) {
        report.chapter(chapter.title)?;
        for network in chapter.open {
            let change = NetworkUpdate { isolated: Some(false), ..NetworkUpdate::default() };
            world.daemon.client.update_network(network, &change)?;
            report.command(&format!("wharf network update {network} --isolated=false"))?;
        }
        for check in &chapter.checks {
            let outcome = check.run();
            if let Some(received) = signals.read()? {
                return Ok(Some(received.signal));
            }
            report.check(outcome)?;
        }
    }
    report.chapter("Bulk: app → web, one TCP connection")?;
    for family in Family::BOTH {
        let rate = Rate::measure(family, &world.app, &world.web);
        if let Some(received) = signals.read()? {
            return Ok(Some(received.signal));
        }
        report.rate(rate)?;
    }
    Ok(None)
}

fn chapters(world: &World) -> Vec<Chapter<'_>> {
    let World { app, web, db, remote, .. } = world;
    let chapter = |title, checks| Chapter { title, open: &[], checks };
    let public = |family| SocketAddr::new(world.uplink(family), PUBLISHED);
    let published = |family| Expect::Published(web.server(family));
    vec![
        chapter(
            "One network: app → web, both on blue",
            all(&Proto::ALL, app, web, |f| web.server(f), |_| Expect::Unchanged),
        ),
        chapter(
            "Two networks: app on blue → db on green, isolated as networks are",
            all(&Proto::ALL, app, db, |f| db.server(f), |f| Expect::Refused(world.gateway(f))),
        ),
        Chapter {
            open: &["blue", "green"],
            ..chapter(
                "Two networks: app → db, now that both allow it",
                all(&Proto::ALL, app, db, |f| db.server(f), |_| Expect::Unchanged),
            )
        },
        chapter(
            "Out: app → remote, masqueraded behind the switch's address on the LAN",
            all(
                &Proto::ALL,
                app,
                remote,
                |f| remote.server(f),
                |f| Expect::Masqueraded(world.uplink(f)),
            ),
        ),
        chapter(
            "In: remote → the port that web publishes, whose sender web sees",
            all(&Proto::WITH_PORTS, remote, web, public, published),
        ),
        chapter(
            "Hairpin: app, a neighbour of web, → the published port",
            all(&Proto::WITH_PORTS, app, web, public, |f| {
                Expect::Hairpin(web.server(f), world.gateway(f))
            }),
        ),
        chapter(
            "Hairpin: db, on another network, → the published port",
            all(&Proto::WITH_PORTS, db, web, public, published),
        ),
    ]
}

/// The same in both families and each protocol.
fn all<'a>(
    protos: &[Proto],
    from: &'a Host,
    at: &'a Host,
    to: impl Fn(Family) -> SocketAddr,
    expect: impl Fn(Family) -> Expect,
) -> Vec<Check<'a>> {
    let mut checks = Vec::new();
    for &proto in protos {
        for family in Family::BOTH {
            let (mut to, expect) = (to(family), expect(family));
            if proto == Proto::Ping {
                to.set_port(0);
            }
            checks.push(Check { proto, family, from, at, to, expect });
        }
    }
    checks
}

//! Carries out the faults of a schedule. Each answers whether it hit anything.

use std::time::Duration;

use futures_util::future::join_all;
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, sleep, sleep_until};

use crate::process::Slot;
use crate::proxy::Proxy;
use crate::schedule::{Fault, Planned};
use crate::server::Stop;
use crate::world::World;

/// How long a fault waits for something that it could hit.
const PATIENCE: Duration = Duration::from_secs(10);

/// Carries out the schedule, and returns when all faults are over and undone.
pub(crate) async fn carry_out(world: &World, schedule: &[Planned]) {
    let began = Instant::now();
    let struck = schedule.iter().map(|planned| async move {
        sleep_until(began + planned.at).await;
        if strike(world, *planned).await {
            world.fired(planned.fault);
        }
    });
    join_all(struck).await;
    world.all_wires().into_iter().for_each(Proxy::flow);
}

async fn strike(world: &World, planned: Planned) -> bool {
    let Planned { process, amount, fault, .. } = planned;
    match fault {
        Fault::Kill | Fault::Terminate | Fault::Freeze | Fault::Stall => {
            let _window = world.calm.disturb(fault, Some(process));
            on_a_process(world, planned).await
        }
        Fault::Restart
        | Fault::Crash
        | Fault::CrashBackend
        | Fault::TerminateBackends
        | Fault::LockTable
        | Fault::LockRows => {
            let _window = world.calm.disturb(fault, None);
            on_the_server(world, fault, amount).await
        }
        // The processes do not notice.
        Fault::CutCallers => {
            let (wire, _turn) = world.wire(None).await;
            cut_reply(wire, amount).await
        }
        _ => {
            let (wire, _turn) = world.wire(Some(process)).await;
            let _window = world.calm.disturb(fault, Some(process));
            disturb(wire, fault, amount).await
        }
    }
}

/// What waits until the process has something to lose.
async fn on_a_process(world: &World, Planned { process, amount, fault, .. }: Planned) -> bool {
    let past_the_lease = world.settings.lease + Duration::from_millis(500 + amount);
    let mut slot = world.slot(process).await;
    match fault {
        Fault::Kill => seize(world, &slot).await && world.replace(&mut slot, Signal::KILL).await,
        Fault::Terminate => {
            let found = seize(world, &slot).await;
            // A process that is stopped hears nothing.
            slot.signal(Signal::CONT);
            found && world.replace(&mut slot, Signal::TERM).await
        }
        Fault::Freeze => {
            let found = seize(world, &slot).await;
            if found {
                world.freeze(&slot, past_the_lease).await;
            }
            found
        }
        _ => {
            let (wire, _turn) = world.wire(Some(process)).await;
            seize(world, &slot).await
                && disturbs(wire, async || {
                    wire.stall();
                    slot.signal(Signal::CONT);
                    sleep(past_the_lease).await;
                })
                .await
        }
    }
}

async fn on_the_server(world: &World, fault: Fault, amount: u64) -> bool {
    match fault {
        Fault::Restart => restart(world, Stop::Fast).await,
        Fault::Crash => restart(world, Stop::Immediate).await,
        Fault::CrashBackend => crash_backend(world).await,
        Fault::TerminateBackends => terminate_backends(world, amount).await,
        // Shorter than what is left of any lease that is being renewed.
        Fault::LockTable => {
            lock(world, "lock table agent_tasks in access exclusive mode", world.settings.lease / 3).await
        }
        _ => {
            let running = "select from agent_tasks where status = 'processing' and crash_count < 2
                limit 20 for update skip locked";
            lock(world, running, Duration::from_millis(500 + 2 * amount)).await
        }
    }
}

/// What happens on the wire of one process, and leaves the process alone.
async fn disturb(wire: &Proxy, fault: Fault, amount: u64) -> bool {
    let for_seconds = async |seconds| sleep(Duration::from_secs(seconds)).await;
    match fault {
        Fault::Cut => hits(async || wire.sever() > 0).await,
        Fault::CutReply => cut_reply(wire, amount).await,
        Fault::Mute => {
            hits(async || {
                let lost = disturbs(wire, async || {
                    wire.mute();
                    sleep(Duration::from_millis(200 + amount)).await;
                });
                lost.await & (wire.sever() > 0)
            })
            .await
        }
        Fault::Delay => {
            let late = async || {
                wire.delay(Duration::from_millis(100 + amount / 5));
                for_seconds(3).await;
            };
            hits(async || disturbs(wire, late).await).await
        }
        Fault::Throttle => {
            let slow = async || {
                wire.throttle(20_000 + 50 * amount);
                for_seconds(3).await;
            };
            hits(async || disturbs(wire, slow).await).await
        }
        Fault::HalfOpen => hits(async || wire.half_open_listeners() > 0).await,
        other => unreachable!("{other:?} is not the wire's affair"),
    }
}

/// Whether anything that came by was disturbed. Afterwards the wire is an ordinary one.
async fn disturbs(wire: &Proxy, fault: impl AsyncFnOnce()) -> bool {
    let before = wire.disturbed();
    fault().await;
    wire.flow();
    wire.disturbed() > before
}

/// Stops a process when it holds tasks or, if it never does, at any moment. But not while it runs a task that crashed twice,
/// or has reserved one: it would be our hand that made it poison, and nobody could tell.
async fn seize(world: &World, slot: &Slot) -> bool {
    let ours = format!("status in ('pending', 'processing') and claimed_by like '{}/%'", slot.name());
    let spared = format!("select coalesce(bool_and(crash_count < 2), true) from agent_tasks where {ours}");
    let busy = format!("select count(*) > 0 and bool_and(crash_count < 2) from agent_tasks where {ours}");
    let is = async |sql: &str| world.server.value(sql).await == Some(true);
    let stopped = async |sql: &str| {
        if !is(sql).await {
            return false;
        }
        slot.signal(Signal::STOP);
        // Until what it has sent is done: it may have claimed one since it was looked at.
        sleep(Duration::from_millis(30)).await;
        let may_be_struck = is(&spared).await;
        if !may_be_struck {
            slot.signal(Signal::CONT);
        }
        may_be_struck
    };
    hits(async || stopped(&busy).await).await || hits(async || stopped(&spared).await).await
}

async fn restart(world: &World, how: Stop) -> bool {
    // The server's new life has wires that are ordinary ones.
    let _turns = world.all_turns().await;
    world.server.restart(how, &world.all_wires()).await;
    true
}

async fn crash_backend(world: &World) -> bool {
    hits(async || {
        let sql = "select pid from pg_stat_activity where application_name = 'task-processor' order by random() limit 1";
        let pid = world.server.value::<i32>(sql).await.and_then(Pid::from_raw);
        pid.is_some_and(|pid| kill_process(pid, Signal::KILL).is_ok())
    })
    .await
}

async fn terminate_backends(world: &World, amount: u64) -> bool {
    let sql = format!(
        "select count(*) filter (where pg_terminate_backend(pid)) > 0 from (
            select pid from pg_stat_activity where application_name = 'task-processor'
            order by random() limit {}
        ) chosen",
        1 + amount / 200
    );
    hits(async || world.server.value(&sql).await == Some(true)).await
}

async fn cut_reply(wire: &Proxy, amount: u64) -> bool {
    let before = wire.disturbed();
    let waits = async || {
        wire.sever_after(usize::try_from(1 + amount / 4).expect("small"));
        hits(async || wire.disturbed() > before).await;
    };
    disturbs(wire, waits).await
}

async fn lock(world: &World, sql: &str, lasts: Duration) -> bool {
    hits(async || {
        let Some(client) = world.server.client().await else { return false };
        let held = client.batch_execute(&format!("set lock_timeout = '2s'; begin; {sql}")).await.is_ok();
        if held {
            sleep(lasts).await;
            let _ = client.batch_execute("rollback").await;
        }
        held
    })
    .await
}

/// Tries until it succeeds, within reason.
async fn hits(mut attempt: impl AsyncFnMut() -> bool) -> bool {
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        if attempt().await {
            return true;
        }
        sleep(Duration::from_millis(50)).await;
    }
    false
}

"""Faults: kill -9, cut connections, lost answers, parallel quotas, a full disk. What was
acknowledged stays, what was not leaves nothing."""

import os

import faults_disk
import faults_kill
import faults_quota
import faults_retry

PARTS = {"retry": faults_retry.part, "quota": faults_quota.part, "kill": faults_kill.part,
         "disk": faults_disk.part}


async def suite(bed, server, report):
    server.start()
    only = os.environ.get("E2E_ONLY", "")
    for name, part in PARTS.items():
        if only in name:
            print(f"  -- {name}")
            await part(bed, server, report)

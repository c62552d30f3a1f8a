"""Campaigns: thousands of damaged files, full disks and kills, counted; `make campaign ARGUMENTS='fuzz --tries 1000'`.

Each prints a table: fault, tries, survived, what a user sees. A small one of each runs in the suite.
"""

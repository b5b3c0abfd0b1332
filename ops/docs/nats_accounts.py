"""ops/deploy/nats/accounts.conf: the account with all roles, for servers whose environment has the passwords."""

from broker.server_config import render_account_for_variables

INTRO = """\
# The account and its users, each with what its role may do. Made by `make docs` from broker/roles.py; do not edit.
#
# A password comes from the environment of nats-server, NATS_PASSWORD_<ROLE>, and stands in the file that the processes
# of the role are given (`inferflux topology credentials --out creds` makes those). Let it begin with a letter: what
# looks like a number is read as one.
#
# `inferflux topology credentials --out creds --accounts accounts.conf` writes a file that has the passwords in it
# instead, mode 0600. Take that one for batch publishers (--tenant), and to exchange logins (--rotate).
"""


def nats_accounts() -> str:
    return INTRO + render_account_for_variables()

package diagnose

import (
	"fmt"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// A storm is so many answers NXDOMAIN to one client within the window, and at
// least half of all its answers: ten a second, where an application that looks
// up a service that is not there yet gets a few.
const (
	stormWindow = 12 * time.Second
	stormSize   = 120
)

// client is what is remembered of one that asks.
type client struct {
	answers  *window
	reported time.Time // when a storm was last reported
	names    [3]string // last names that do not exist, newest first
}

// nxdomainStorm finds a client that floods its server with names that do not
// exist, with one lookup a window. Proof: so many NXDOMAIN to one address.
func nxdomainStorm(m *memory, t *trace.Trace) []trace.Finding {
	ex := t.Exchange
	if ex == nil || ex.Outcome != trace.OutcomeAnswered {
		return nil
	}
	c := m.client(clientOf(ex))
	missing := ex.RCode == "NXDOMAIN"
	c.answers.add(ex.Time, missing)
	if !missing {
		return nil
	}
	c.note(ex.QName)
	all, nx := c.answers.sum(ex.Time)
	if nx < stormSize || 2*nx < all || ex.Time.Sub(c.reported) < stormWindow {
		return nil
	}
	c.reported = ex.Time
	f := trace.Finding{
		Code:    NXDomainStorm,
		Summary: fmt.Sprintf("%d of the %d lookups of %s within %s are of names that do not exist.", nx, all, who(ex), stormWindow),
		Advice:  "Find the misspelt or removed name in the client's configuration; a final dot or fewer `ndots` spares the search list's share.",
	}
	for _, name := range c.names {
		if name != "" {
			f.Evidence = append(f.Evidence, "answered NXDOMAIN: "+name)
		}
	}
	return []trace.Finding{f}
}

// note keeps the last different names.
func (c *client) note(name string) {
	for i, n := range c.names {
		if n == name {
			copy(c.names[1:i+1], c.names[:i])
			c.names[0] = name
			return
		}
	}
	copy(c.names[1:], c.names[:])
	c.names[0] = name
}

// client returns what is known of one.
func (m *memory) client(k clientKey) *client {
	c := m.clients[k]
	if c == nil {
		if len(m.clients) >= maxClients {
			forgetStalest(m.clients, func(c *client) int64 { return c.answers.latest() })
		}
		c = &client{answers: newWindow(stormWindow)}
		m.clients[k] = c
	}
	return c
}

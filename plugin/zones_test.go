package dnstrace

import (
	"testing"

	"github.com/coredns/coredns/plugin"
)

// What zone a name is in is what CoreDNS says.
func TestZones(t *testing.T) {
	for _, list := range [][]string{
		nil, {"."}, {"org."}, {"example.org."}, {"org.", "example.org.", "sub.example.org."}, {"sub.example.org.", "."}, {`b\.example.org.`}, {"1.10.in-addr.arpa."},
	} {
		for _, name := range []string{
			".", "org.", "example.org.", "EXAMPLE.Org.", "www.example.org.", "Www.Sub.Example.ORG.", "notexample.org.", "example.net.",
			`a\.example.org.`, `a\\.example.org.`, `a\\\.example.org.`, `a.b\.example.org.`, `\.example.org.`, ".example.org.", "3.2.1.10.in-addr.arpa.", "11.10.in-addr.arpa.",
		} {
			if got, want := zones(list).match(name), plugin.Zones(list).Matches(name); got != want {
				t.Errorf("%s in %q: got %q, want %q", name, list, got, want)
			}
		}
	}
}

func TestZonesDoNotAllocate(t *testing.T) {
	z := zones{"org.", "example.org.", "example.net."}
	if n := testing.AllocsPerRun(100, func() {
		if z.match("www.example.org.") == "" {
			t.Error("it is in none")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

package dnstrace

import "strings"

// zones are zones of a Corefile, absolute and in lower case.
type zones []string

// match returns the longest of the zones that name is in, or "". It is
// plugin.Zones.Matches without what that allocates for each zone but the root, which is
// more than all else here.
func (z zones) match(name string) string {
	longest := ""
	for _, zone := range z {
		if len(zone) > len(longest) && inZone(name, zone) {
			longest = zone
		}
	}
	return longest
}

// inZone reports whether an absolute name is in a zone, whatever its case.
func inZone(name, zone string) bool {
	if zone == "." {
		return true
	}
	start := len(name) - len(zone)
	if start < 0 || !strings.EqualFold(name[start:], zone) {
		return false
	}
	if start == 0 {
		return true
	}
	// The dot before it is one between labels unless it is escaped (RFC 1035, section
	// 5.1).
	before := name[:start-1]
	escapes := len(before) - len(strings.TrimRight(before, `\`))
	return name[start-1] == '.' && escapes%2 == 0
}

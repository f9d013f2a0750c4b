package assemble

// glibc's getaddrinfo takes the answers for A and AAAA into one buffer, and where they do not fit
// it begins again with one that is twice as large: it asks for both once more, from another
// socket, over UDP and then TCP (resolv/nss_dns/dns-host.c, sysdeps/posix/getaddrinfo.c).
const (
	firstBuffer  = 1024 // bytes
	addressTuple = 40   // what an address takes of it: struct gaih_addrtuple, where a pointer has 8 bytes
)

// fillsBuffer tells whether an answer may be why all is asked again.
func (a *asking) fillsBuffer() bool { return 2*addressTuple*int(a.records) > firstBuffer }

// roundBefore finds the one group that lookup i begins to ask again, because its answers did not
// fit.
func roundBefore(list []asking, i int) (int, bool) {
	if !ofPair(list, i) {
		return 0, false
	}
	b, found := &list[i], -1
	for j := range list[:i] {
		if g := list[j].group; g != b.group && g != found && list[j].name == b.name && needsMore(list, g, b) {
			if found >= 0 {
				return 0, false
			}
			found = g
		}
	}
	return found, found >= 0
}

// ofPair tells whether a lookup and its other type of address came from one socket.
func ofPair(list []asking, i int) bool {
	for j := range list {
		if a, b := &list[j], &list[i]; a.port == b.port && a.tcp == b.tcp && a.group == b.group && addresses(a, b) {
			return true
		}
	}
	return false
}

// askedOverTCP tells whether what lookup i asks over UDP is asked over TCP in its group.
func askedOverTCP(list []asking, i int) bool {
	for j := range list {
		if a, b := &list[j], &list[i]; a.group == b.group && a.tcp && !b.tcp && a.qtype == b.qtype && a.name == b.name {
			return true
		}
	}
	return false
}

// needsMore tells whether a group was over just before a lookup, and its answers are too large for
// the buffer of its last round.
func needsMore(list []asking, g int, b *asking) bool {
	rounds, end := 0, int64(0)
	records := map[string]uint16{}
	for j := range list {
		a := &list[j]
		if a.group != g {
			continue
		}
		if a.name != b.name || !ofPair(list, j) {
			return false
		}
		if a.qtype == b.qtype && a.tcp == b.tcp {
			rounds++
		}
		if !a.answered && askedOverTCP(list, j) {
			continue // for the other was truncated
		}
		if !a.answered || a.failed {
			return false
		}
		records[a.qtype] = max(records[a.qtype], a.records)
		end = max(end, a.end)
	}
	needs := addressTuple*int(records["A"]+records["AAAA"]) + len(b.name)
	return end <= b.start && b.start-end <= goesOn && rounds > 0 && needs > firstBuffer<<(rounds-1)
}

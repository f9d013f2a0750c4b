package diagnose_test

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/dnstrace/dnstrace/trace"
)

// packetSentences are those about packets.
var packetSentences = []sentence{
	form(`its query with ID `+id+` left from `+addr+` port (\d+) and nothing came back`, func(c *claim, said []string) bool {
		return c.exchange(func(ex *trace.Exchange) bool { return left(ex, said) && nothingCame(ex) })
	}),
	form(`its query with ID `+id+` left from `+addr+` port (\d+) and nothing was seen to come back`, func(c *claim, said []string) bool {
		return c.exchange(func(ex *trace.Exchange) bool { return left(ex, said) && nothingCame(ex) })
	}),
	form(`its query with ID `+id+` left from `+addr+` port (\d+) and no response (arrived|to it could be taken|came)`, func(c *claim, said []string) bool {
		return c.exchange(func(ex *trace.Exchange) bool {
			switch said[3] {
			case "to it could be taken":
				return left(ex, said) && len(ex.Rejected) > 0 && ex.Outcome != trace.OutcomeAnswered
			case "came":
				return left(ex, said) && len(seenOf(ex, trace.MessageResponse)) == 0
			}
			return left(ex, said) && len(seenOf(ex, trace.MessageResponse)) > 0 && !ex.Milestones.Response.Arrived.Seen()
		})
	}),
	form(`its query with ID `+id+` left from `+addr+` port (\d+)(?: when (\d+) others? waited)?, and the response had the code (\w+)`, func(c *claim, said []string) bool {
		return c.exchange(func(ex *trace.Exchange) bool {
			return left(ex, said) && ex.RCode == said[4] && (said[3] == "" || ex.Outstanding == number(said[3]))
		})
	}),
	form(`its query with ID `+id+` left from `+addr+` port (\d+), and the response \((\w+)\) came `+long+` later`, func(c *claim, said []string) bool {
		return c.exchange(func(ex *trace.Exchange) bool {
			return left(ex, said) && ex.RCode == said[3] && spentPtr(ex.Duration, said[4])
		})
	}),
	form(`it was last seen `+where+` in `+netns, func(c *claim, said []string) bool {
		return c.exchange(func(ex *trace.Exchange) bool {
			all := seenOf(ex, trace.MessageQuery)
			return len(all) > 0 && how(&all[len(all)-1]) == said[0] && placeName(all[len(all)-1].NetNSName, all[len(all)-1].NetNS) == said[1]
		})
	}),
	form(`(?:until then )?the `+kind+` was last seen (?:`+long+` after|when) the client sent (?:it|its query|its SYN), `+where+` in `+netns+` \(`+endAt+` > `+endAt+`\)`, lastSeen),
	form(`the query was (received from device \S+|delivered to a socket) in `+netns+`, `+long+` after the client sent it`, func(c *claim, said []string) bool {
		return c.exchange(func(ex *trace.Exchange) bool {
			at, ok := ex.Sighting(ex.Milestones.Query.Arrived)
			return ok && how(&at) == said[0] && at.NetNSName == said[1] && spent(at.Offset, said[2])
		})
	}),
	form(`kernel drop of the `+kind+` `+long+` after the first packet: reason (.+?), in (\S+)(?: \((.+?)\))?(?:, in `+netns+`, (at device (\S+)|before it had a device))?`, dropped),
	form(`(\d+) more drops? of its packets`, func(c *claim, said []string) bool {
		return c.exchange(func(ex *trace.Exchange) bool { return len(ex.Drops) == number(said[0])+4 })
	}),
	form(`the kernel reported no drop of it on this node`, func(c *claim, _ []string) bool { return len(c.t.Exchange.Drops) == 0 }),
	form(`it was sent (\d+) times?(?:, and nothing answered)?`, func(c *claim, said []string) bool {
		return c.exchange(func(ex *trace.Exchange) bool { return ex.Transmissions == number(said[0]) })
	}),
	form(`it was sent again `+long+` later, and answered `+long+` after the first packet`, func(c *claim, said []string) bool {
		return spentPtr(c.t.Exchange.Duration, said[1]) && between(c.t.Exchange, said[0])
	}),
	form(`query (\d+) was sent `+long+` after the first`, func(c *claim, said []string) bool {
		sent := sendings(c.t.Exchange)
		n := number(said[0])
		return n > 0 && n <= len(sent) && spent(sent[n-1], said[1])
	}),
	form(`the response came `+long+` after the first query`, func(c *claim, said []string) bool { return spentPtr(c.t.Exchange.Duration, said[0]) }),
	form(`a response of (\d+) bytes(?: \((\w+)\))? came from `+endAt+` `+long+` after the query and was not taken: (.+)`, func(c *claim, said []string) bool {
		words := map[string]string{
			trace.RejectedAddress: "wrong source address", trace.RejectedPort: "wrong source port", trace.RejectedQuestion: "wrong question",
			trace.RejectedID: "wrong DNS ID", trace.RejectedIncomplete: "incomplete", trace.RejectedMalformed: "malformed",
		}
		return c.exchange(func(ex *trace.Exchange) bool {
			for _, r := range ex.Rejected {
				if r.Size == number(said[0]) && r.RCode == said[1] && r.Src.String() == said[2] && spent(r.Offset, said[3]) && words[r.Why] == said[4] {
					return true
				}
			}
			return false
		})
	}),
	form(`ICMP error type (\d+) code (\d+) from `+addr+`, `+long+` after the query(, first seen as it was sent in| , first seen as it came in, in|, first seen as it came in, in|, which the kernel dropped in) `+netns+`, (?:at device (\S+)|before it had a device)`, func(c *claim, said []string) bool {
		directions := map[string]string{", first seen as it was sent in": trace.DirectionTX, ", first seen as it came in, in": trace.DirectionRX, ", which the kernel dropped in": ""}
		return c.exchange(func(ex *trace.Exchange) bool {
			i := ex.ICMP
			return i != nil && int(i.Type) == number(said[0]) && int(i.Code) == number(said[1]) && i.From.String() == said[2] && spent(i.Offset, said[3]) &&
				i.Direction == directions[said[4]] && i.NetNSName == said[5] && i.IfName == said[6]
		})
	}),
	form(`the error is the (query|SYN) itself, rewritten: it is in the same packet buffer, and no socket sent it`, func(c *claim, said []string) bool {
		return c.exchange(func(ex *trace.Exchange) bool {
			return ex.ICMP != nil && ex.ICMP.BPF && ex.Connects() == (said[0] == "SYN")
		})
	}),
	form(`what a rule rejects or drops as it is sent fails with EPERM \(operation not permitted\)`, func(c *claim, _ []string) bool {
		return c.exchange(func(ex *trace.Exchange) bool {
			d := ex.LastDrop()
			return ex.Protocol == "udp" && d != nil && d.IfName == "" && strings.Contains(d.Description, "hook OUTPUT")
		})
	}),
	form(`no ICMP error that tells (?:its sender|the server) was seen`, func(c *claim, _ []string) bool {
		return c.exchange(func(ex *trace.Exchange) bool { return ex.ICMP == nil && ex.Outcome != trace.OutcomeAnswered })
	}),
	form(`(query|response) of (\d+) bytes over (UDP|TCP)`, func(c *claim, said []string) bool {
		return c.exchange(func(ex *trace.Exchange) bool {
			size := ex.RequestSize
			if said[0] == trace.MessageResponse && ex.ResponseSize != nil {
				size = *ex.ResponseSize
			}
			return size == number(said[1]) && strings.ToUpper(ex.Protocol) == said[2]
		})
	}),
	form(`response of (\d+) bytes over UDP, advertised size (\d+) bytes, truncated: (\w+)`, func(c *claim, said []string) bool {
		return c.exchange(func(ex *trace.Exchange) bool {
			return ex.Protocol == "udp" && ex.ResponseSize != nil && *ex.ResponseSize == number(said[0]) && ex.BufSize == number(said[1]) && strconv.FormatBool(ex.Truncated) == said[2]
		})
	}),
	form(`(\d+) fragments? with (\d+) bytes seen, where most of them were, of (?:(\d+) bytes in all|an unknown number: the last was not seen)`, func(c *claim, said []string) bool {
		return c.exchange(func(ex *trace.Exchange) bool {
			f := ex.Fragments
			return f != nil && f.Seen == number(said[0]) && f.SeenBytes == number(said[1]) && (f.Size == nil && said[2] == "" || f.Size != nil && *f.Size == number(said[2]))
		})
	}),
	form(`the server sent (\d+) segments? of it again, and the response did not arrive`, func(c *claim, said []string) bool {
		return c.exchange(func(ex *trace.Exchange) bool {
			return ex.ResentSegments == number(said[0]) && !ex.Milestones.Response.Arrived.Seen() && ex.Outcome != trace.OutcomeAnswered
		})
	}),
	form(`the connection was opened over the same way, and the client did not send its query again, as it does until that is acknowledged`, func(c *claim, _ []string) bool {
		return c.exchange(func(ex *trace.Exchange) bool { return ex.Protocol == "tcp" && !ex.Connects() && ex.Transmissions == 1 })
	}),
	form(`the last SYN of (.+) that reached the listener found no room in its queue`, func(c *claim, _ []string) bool {
		return c.exchange(func(ex *trace.Exchange) bool { return ex.ListenFull && ex.Connects() })
	}),
	form(`its table had (\d+) entries of at most (\d+) at that moment, and none for this packet`, func(c *claim, said []string) bool {
		return c.exchange(func(ex *trace.Exchange) bool {
			d := ex.LastDrop()
			return d != nil && int(d.ConntrackCount) == number(said[0]) && int(d.ConntrackMax) == number(said[1])
		})
	}),
	form(addr+` port (\d+) was translated to (\S+) \((\w+)\)`, func(c *claim, said []string) bool {
		return c.exchange(func(ex *trace.Exchange) bool {
			if ex.NAT == nil {
				return false
			}
			to := ex.NAT.ServerIP.String()
			if ex.NAT.ServerPort != nil && strings.HasSuffix(said[2], fmt.Sprintf(":%d", *ex.NAT.ServerPort)) {
				to += fmt.Sprintf(":%d", *ex.NAT.ServerPort)
			}
			return ex.ServerIP.String() == said[0] && int(ex.ServerPort) == number(said[1]) && to == said[2] && ex.NAT.Source == said[3]
		})
	}),
	form(`it was asked for (\S+) (\S+) with the ID `+id+` from `+addr+` port (\d+)(?:, `+long+` after the client asked)?`, func(c *claim, said []string) bool {
		return c.exchange(func(ex *trace.Exchange) bool {
			return ex.QName == said[0] && ex.QType == said[1] && left(ex, said[2:]) && (said[5] == "" || seconds(ex.Time.Sub(c.t.Exchange.Time)) == said[5])
		})
	}),
}

// left tells whether an exchange has the ID, and the address and port of its client.
func left(ex *trace.Exchange, said []string) bool {
	return ex.ID == hexID(said[0]) && ex.ClientIP.String() == said[1] && int(ex.ClientPort) == number(said[2])
}

// nothingCame tells whether nothing whatever came back for a query.
func nothingCame(ex *trace.Exchange) bool {
	return ex.RCode == "" && len(seenOf(ex, trace.MessageResponse)) == 0 && len(ex.Rejected) == 0 && ex.ICMP == nil && ex.Reset == nil
}

// seenOf returns the sightings of a message.
func seenOf(ex *trace.Exchange, message string) (all []trace.Sighting) {
	for _, s := range ex.Path.All() {
		if s.Message == message {
			all = append(all, s)
		}
	}
	return all
}

func how(s *trace.Sighting) string {
	switch s.Direction {
	case trace.DirectionTX:
		return "sent to device " + s.IfName
	case trace.DirectionRX:
		return "received from device " + s.IfName
	case trace.DirectionDelivered:
		return "delivered to a socket"
	}
	return "read from a socket by its process"
}

func placeName(name string, inode uint32) string {
	if name != "" {
		return name
	}
	return strconv.FormatUint(uint64(inode), 10)
}

// messageOf returns which message of an exchange a word means.
func messageOf(ex *trace.Exchange, word string) (string, bool) {
	switch word {
	case "SYN":
		return trace.MessageQuery, ex.Connects()
	case "SYN-ACK":
		return trace.MessageResponse, ex.Connects()
	}
	return word, !ex.Connects()
}

// lastSeen wants a sighting that is the last of its message, or the last before a drop or
// another transmission of it.
func lastSeen(c *claim, said []string) bool {
	return c.exchange(func(ex *trace.Exchange) bool {
		message, ok := messageOf(ex, said[0])
		all := seenOf(ex, message)
		for i := range all {
			s := &all[i]
			if at := spent(s.Offset, said[1]) || said[1] == "" && s.Offset == 0; ok && at && how(s) == said[2] && placeName(s.NetNSName, s.NetNS) == said[3] && s.Src.String() == said[4] && s.Dst.String() == said[5] &&
				(i+1 == len(all) || interrupted(ex, message, s, &all[i+1])) {
				return true
			}
		}
		return false
	})
}

// interrupted tells whether a message was dropped, or was sent again, between two sightings.
func interrupted(ex *trace.Exchange, message string, s, next *trace.Sighting) bool {
	for i := range ex.Drops {
		if d := &ex.Drops[i]; d.Message == message && d.Offset >= s.Offset && d.Offset <= next.Offset {
			return true
		}
	}
	return next.Direction == trace.DirectionTX && next.Device == seenOf(ex, message)[0].Device
}

// dropped wants a drop with all that is said of it.
func dropped(c *claim, said []string) bool {
	return c.exchange(func(ex *trace.Exchange) bool {
		message, ok := messageOf(ex, said[0])
		for _, d := range ex.Drops {
			reason, place := d.Reason, "at device "+d.IfName
			if reason == "" {
				reason = "not given by this kernel"
			}
			if d.IfName == "" {
				place = "before it had a device"
			}
			if ok && d.Message == message && spent(d.Offset, said[1]) && reason == said[2] && d.Where == said[3] && d.Description == said[4] &&
				(said[5] == "" || placeName(d.NetNSName, d.NetNS) == said[5] && place == said[6]) {
				return true
			}
		}
		return false
	})
}

// sendings returns when a query was sent: where it was seen first, and where it died before
// it had a device.
func sendings(ex *trace.Exchange) (sent []trace.Seconds) {
	all := seenOf(ex, trace.MessageQuery)
	for i := range all {
		if all[i].Device == all[0].Device && all[i].Direction == all[0].Direction {
			sent = append(sent, all[i].Offset)
		}
	}
	for i := range ex.Drops {
		if d := &ex.Drops[i]; d.Message == trace.MessageQuery && d.IfName == "" {
			sent = append(sent, d.Offset)
		}
	}
	return sent
}

// between tells whether two sendings of a query are so far apart.
func between(ex *trace.Exchange, said string) bool {
	sent := sendings(ex)
	for i := range sent {
		for j := range sent {
			if sent[j] > sent[i] && spent(sent[j]-sent[i], said) {
				return true
			}
		}
	}
	return false
}

package diagnose

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// netns names a network namespace.
func netns(name string, inode uint32) string {
	switch {
	case name != "":
		return "namespace " + name
	case inode != 0:
		return fmt.Sprintf("namespace %d", inode)
	}
	return "an unknown namespace"
}

// device names a device, which a packet on its way out does not have yet.
func device(name string) string {
	if name == "" {
		return "before it had a device"
	}
	return "at device " + name
}

// lastSighting quotes the last place where a message was seen.
func lastSighting(ex *trace.Exchange, message string) (string, bool) {
	return lastSightingBefore(ex, message, math.MaxInt64)
}

// lastSightingBefore quotes the last place where a message was seen up to some
// time after the first packet.
func lastSightingBefore(ex *trace.Exchange, message string, offset trace.Seconds) (string, bool) {
	s := lastSeen(ex, message, offset)
	if s == nil {
		return "", false
	}
	verb, what := "received from", "it"
	if s.Direction == trace.DirectionTX {
		verb = "sent to"
	}
	if message == trace.MessageResponse {
		what = "its " + packet(ex, trace.MessageQuery)
	}
	return fmt.Sprintf("the %s was last seen %s after the client sent %s, %s device %s in %s (%s > %s)",
		packet(ex, message), since(s.Offset), what, verb, s.IfName, netns(s.NetNSName, s.NetNS), s.Src, s.Dst), true
}

// lastSeen returns the last sighting of a message up to some time after the first
// packet, nil if there is none.
func lastSeen(ex *trace.Exchange, message string, offset trace.Seconds) *trace.Sighting {
	for i := len(ex.Path) - 1; i >= 0; i-- {
		if s := &ex.Path[i]; s.Message == message && s.Offset <= offset {
			return s
		}
	}
	return nil
}

// lastPlace goes on with where a message was last seen, if it was seen at all.
func lastPlace(ex *trace.Exchange, message string) string {
	s := lastSeen(ex, message, math.MaxInt64)
	if s == nil {
		return ""
	}
	return fmt.Sprintf("; the %s was last seen at device %s in %s", packet(ex, message), s.IfName, netns(s.NetNSName, s.NetNS))
}

// packet names what carries a message: of an attempt to connect, there is none.
func packet(ex *trace.Exchange, message string) string {
	switch {
	case !ex.Connects():
		return message
	case message == trace.MessageResponse:
		return "SYN-ACK"
	}
	return "SYN"
}

// since writes a duration the way people compare them: three digits and a unit.
func since(s trace.Seconds) string {
	d := s.Duration()
	switch {
	case d < time.Millisecond:
		return fmt.Sprintf("%.3gµs", float64(d)/1e3)
	case d < time.Second:
		return fmt.Sprintf("%.3gms", float64(d)/1e6)
	}
	return fmt.Sprintf("%.3fs", d.Seconds())
}

// count writes a number with its noun.
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	if before, ok := strings.CutSuffix(noun, "y"); ok {
		return fmt.Sprintf("%d %sies", n, before)
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// took is since for a time.Duration.
func took(d time.Duration) string { return since(trace.Seconds(d)) }

// who names the client of a lookup: the pod or process, and the address.
func who(ex *trace.Exchange) string {
	name := ""
	if c := ex.Client; c != nil {
		switch {
		case c.Pod != "":
			name = "pod " + c.Namespace + "/" + c.Pod
		case c.Process != "":
			name = "process " + c.Process
		}
	}
	if name == "" {
		return ex.ClientIP.String()
	}
	return fmt.Sprintf("%s (%s)", name, ex.ClientIP)
}

package lab

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"strconv"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Bits of an entry's status (include/uapi/linux/netfilter/nf_conntrack_common.h).
// What has been answered for a while is assured: a full table does not give it up
// for a new entry.
const assuredEntry = 1<<1 | 1<<2 | 1<<3 // SEEN_REPLY, ASSURED, CONFIRMED

const (
	entrySeconds = 600 // outlives any test
	entryBatch   = 256 // requests a message to the kernel, some 50 kB
)

// FillConntrack fills the node's connection tracking with entries of others, as
// many as the kernel's net.netfilter.nf_conntrack_max allows: then no packet of a
// new connection gets through, until undone. The setting is the machine's and
// stays as it is; each namespace has a table of its own.
func (l *Lab) FillConntrack() (undo func(), err error) {
	node := l.Host(Node)
	undo = l.undoOnce(node.flushConntrack)
	// Entries that are not assured would make room.
	if err = node.flushConntrack(); err == nil {
		err = node.Do(fillConntrack)
	}
	if err != nil {
		undo()
		return nil, fmt.Errorf("fill the connection tracking of %s: %w", node.Name, err)
	}
	return undo, nil
}

func (h *Host) flushConntrack() error {
	return h.Do(func() error { return netlink.ConntrackTableFlush(netlink.ConntrackTable) })
}

// fillConntrack works in the namespace of its thread.
func fillConntrack() error {
	most, err := conntrackSetting("nf_conntrack_max")
	if err != nil {
		return err
	}
	socket, err := nl.Subscribe(unix.NETLINK_NETFILTER)
	if err != nil {
		return err
	}
	defer socket.Close()
	var batch bytes.Buffer
	for n, have := 0, 0; have < most; {
		batch.Reset()
		for range min(entryBatch, most-have) {
			batch.Write(newEntry(n).Serialize())
			n++
		}
		if err := unix.Send(socket.GetFd(), batch.Bytes(), 0); err != nil {
			return err
		}
		had := have
		if have, err = conntrackSetting("nf_conntrack_count"); err != nil {
			return err
		}
		if have <= had {
			return fmt.Errorf("%d of %d entries, and the kernel takes no more", have, most)
		}
	}
	return nil
}

func conntrackSetting(name string) (int, error) {
	text, err := os.ReadFile("/proc/sys/net/netfilter/" + name)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(string(bytes.TrimSpace(text)))
}

// newEntry asks for the n-th entry: a datagram from one of the addresses for
// benchmarks (RFC 2544) to another, and its reply.
func newEntry(n int) *nl.NetlinkRequest {
	client := netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, byte(n >> 24), byte(n >> 16)}), uint16(n))
	server := netip.MustParseAddrPort("198.19.0.1:9")
	req := nl.NewNetlinkRequest(int(netlink.ConntrackTable)<<8|nl.IPCTNL_MSG_CT_NEW, unix.NLM_F_CREATE)
	req.AddData(&nl.Nfgenmsg{NfgenFamily: unix.AF_INET, Version: nl.NFNETLINK_V0})
	req.AddData(entryTuple(nl.CTA_TUPLE_ORIG, client, server))
	req.AddData(entryTuple(nl.CTA_TUPLE_REPLY, server, client))
	req.AddData(nl.NewRtAttr(nl.CTA_STATUS, nl.BEUint32Attr(assuredEntry)))
	req.AddData(nl.NewRtAttr(nl.CTA_TIMEOUT, nl.BEUint32Attr(entrySeconds)))
	return req
}

func entryTuple(direction int, src, dst netip.AddrPort) *nl.RtAttr {
	tuple := nl.NewRtAttr(unix.NLA_F_NESTED|direction, nil)
	ip := tuple.AddRtAttr(unix.NLA_F_NESTED|nl.CTA_TUPLE_IP, nil)
	ip.AddRtAttr(nl.CTA_IP_V4_SRC, src.Addr().AsSlice())
	ip.AddRtAttr(nl.CTA_IP_V4_DST, dst.Addr().AsSlice())
	proto := tuple.AddRtAttr(unix.NLA_F_NESTED|nl.CTA_TUPLE_PROTO, nil)
	proto.AddRtAttr(nl.CTA_PROTO_NUM, []byte{unix.IPPROTO_UDP})
	proto.AddRtAttr(nl.CTA_PROTO_SRC_PORT, nl.BEUint16Attr(src.Port()))
	proto.AddRtAttr(nl.CTA_PROTO_DST_PORT, nl.BEUint16Attr(dst.Port()))
	return tuple
}

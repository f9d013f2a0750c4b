package main

import (
	"context"
	"net"
)

// headerSize is that of a DNS message (RFC 1035, section 4.1.1).
const headerSize = 12

// answer is an A record for the name of the question, which starts behind the
// header (RFC 1035, section 4.1.4): 192.0.2.1, a minute long.
var answer = []byte{0xc0, headerSize, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1}

// serve answers each query with the query itself and one record, until ctx ends: a
// server that takes next to nothing of the machine, so that others can be measured.
func serve(ctx context.Context, addr string) error {
	conn, err := new(net.ListenConfig).ListenPacket(ctx, "udp4", addr)
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	udp := conn.(*net.UDPConn)
	var buf [512]byte
	for {
		n, from, err := udp.ReadFromUDPAddrPort(buf[:len(buf)-len(answer)])
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return err
		case n < headerSize:
			continue
		}
		buf[2] |= 0x80 // QR: a response
		buf[7] = 1     // ANCOUNT
		n += copy(buf[n:], answer)
		// The client may have gone.
		_, _ = udp.WriteToUDPAddrPort(buf[:n], from)
	}
}

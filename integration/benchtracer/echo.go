package main

import (
	"fmt"
	"net"
	"os"
)

const (
	echoRole  = "echo"
	readyLine = "ready"
	// otherPort is where the echo server answers what is not DNS: the port of RFC 862.
	otherPort = 7
)

// answer is an A record for the name of the question, which starts behind the
// header (RFC 1035, section 4.1.4): 192.0.2.1, a minute long.
var answer = []byte{0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1}

// serveEcho answers each query with the query itself and one record, on the DNS
// port, and the same on another, until it is killed: a server that costs next to
// nothing, so that what an observer costs shows.
func serveEcho() error {
	failed := make(chan error)
	for _, port := range []int{53, otherPort} {
		conn, err := net.ListenUDP("udp4", &net.UDPAddr{Port: port})
		if err != nil {
			return err
		}
		go func() { failed <- echoOn(conn) }()
	}
	if _, err := fmt.Fprintln(os.Stderr, readyLine); err != nil {
		return err
	}
	return <-failed
}

func echoOn(conn *net.UDPConn) error {
	var buf [512]byte
	for {
		n, from, err := conn.ReadFromUDPAddrPort(buf[:len(buf)-len(answer)])
		if err != nil {
			return err
		}
		if n < headerSize {
			continue
		}
		buf[2] |= 0x80 // QR: a response
		buf[7] = 1     // ANCOUNT
		n += copy(buf[n:], answer)
		// The client may have gone.
		_, _ = conn.WriteToUDPAddrPort(buf[:n], from)
	}
}

/* Resolves its argument as an application does that wants to connect. */
#include <netdb.h>
#include <string.h>
#include <sys/socket.h>

int main(int argc, char **argv)
{
	struct addrinfo hints, *found;

	memset(&hints, 0, sizeof hints);
	hints.ai_socktype = SOCK_STREAM;
	if (argc != 2)
		return 2;
	if (!getaddrinfo(argv[1], 0, &hints, &found))
		freeaddrinfo(found);
	return 0;
}

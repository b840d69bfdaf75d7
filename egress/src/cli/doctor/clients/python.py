# Says whether Python's ssl trusts what it is shown for a host, in a word, and why.
import ssl, sys, urllib.error, urllib.request
try:
    urllib.request.urlopen('https://%s/' % sys.argv[1], timeout=8).close()
    print('trusted')
except urllib.error.HTTPError:
    print('trusted')
except urllib.error.URLError as error:
    print('untrusted' if isinstance(error.reason, ssl.SSLError) else 'unclear', error.reason)
except Exception as error:
    print('unclear', error)

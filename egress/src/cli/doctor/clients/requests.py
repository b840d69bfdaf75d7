# Says whether requests trusts what it is shown for a host, in a word, and why.
import sys
try:
    import requests
except ImportError:
    sys.exit(print('absent'))
try:
    requests.get('https://%s/' % sys.argv[1], timeout=8, stream=True).close()
    print('trusted')
except (requests.exceptions.SSLError, OSError) as error:
    print('untrusted' if isinstance(error, requests.exceptions.SSLError) or 'CA certificate' in str(error)
          else 'unclear', error)

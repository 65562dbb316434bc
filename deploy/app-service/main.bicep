// Puts the gateway in front of a SimpleChat that `azd up` deployed on App Service: the gateway is the main
// container, SimpleChat a sidecar on loopback. Deploy again after each azd up, then run ./check-after-azd.sh.
// Steps: docs/deploy/app-service.md
targetScope = 'resourceGroup'

@description('Name of SimpleChat\'s web app')
param siteName string

@description('Image of the gateway, in a registry that the app can pull from: REGISTRY/simplechat-gateway@sha256:… or :VERSION')
param gatewayImage string

@description('Present image of SimpleChat: REGISTRY/simplechat@sha256:… or :TAG')
param simpleChatImage string

@description('Entra tenant: TENANT_ID of SimpleChat')
param tenantId string

@description('SimpleChat\'s app registration: CLIENT_ID of SimpleChat')
param clientId string

@description('Public origins, comma-separated, the canonical one first: https://chat.example')
param publicUrls string

@description('Host name of Redis, as in SimpleChat\'s admin page')
param redisHost string

@description('URI of the Key Vault secret with Redis\' access key. The app\'s identity needs read access to it')
param redisKeySecretUri string

@description('on: tenant and client ids become public, as accepted in exposureAcceptedBy; managed: administrators opt in, which requires databaseUrlSecretUri')
@allowed([
  'off'
  'on'
  'managed'
])
param externalAccess string = 'off'

@description('Name and date of the acceptance. Required with on')
param exposureAcceptedBy string = ''

@description('URI of the Key Vault secret with DATABASE_URL: postgres://… for several instances. Required with managed; empty: the activity log goes to stderr and telemetry only')
param databaseUrlSecretUri string = ''

@description('Version of the access tokens: api.requestedAccessTokenVersion of the app registration (doctor prints it)')
@allowed([
  1
  2
])
param accessTokenVersion int = 2

@description('Client id of a user-assigned identity that can pull both images; empty: the system-assigned identity of the app')
param pullIdentityClientId string = ''

// Values by cloud: no address of the public cloud is hard-coded.
var clouds = {
  AzureCloud: 'public'
  AzureUSGovernment: 'usgovernment'
  AzureChinaCloud: 'china'
}
var cloud = clouds[environment().name]
var version1Issuer = cloud == 'china' ? 'https://sts.chinacloudapi.cn/${tenantId}/' : 'https://sts.windows.net/${tenantId}/'
var version2Issuer = uri(environment().authentication.loginEndpoint, '${tenantId}/v2.0')
var pullAuthType = empty(pullIdentityClientId) ? 'SystemIdentity' : 'UserAssigned'

resource site 'Microsoft.Web/sites@2024-11-01' existing = {
  name: siteName
}

// Present settings, SimpleChat's included, are preserved; these are added.
module appSettings 'app-settings.bicep' = {
  name: 'simplechat-gateway-app-settings'
  params: {
    siteName: siteName
    present: list(resourceId('Microsoft.Web/sites/config', siteName, 'appsettings'), '2024-11-01').properties
    added: {
      TENANT_ID: tenantId
      CLIENT_ID: clientId
      AZURE_ENVIRONMENT: cloud
      // SimpleChat: loopback only; GUNICORN_BIND overrides PORT.
      GUNICORN_BIND: '127.0.0.1:5000'
      GUNICORN_CMD_ARGS: '--forwarder-headers=X-NONE --limit-request-field_size=16408'
      // App Service: port of the main container, time limits, warm-up path.
      WEBSITES_PORT: '8080'
      WEBSITES_CONTAINER_START_TIME_LIMIT: '600'
      // GATEWAY_DRAIN_DELAY + GATEWAY_DRAIN_TIMEOUT + 10 s.
      WEBSITES_CONTAINER_STOP_TIME_LIMIT: '35'
      WEBSITE_SWAP_WARMUP_PING_PATH: '/gateway/health/ready'
      WEBSITE_SWAP_WARMUP_PING_STATUSES: '200'
      // The gateway.
      GATEWAY_LISTEN: '0.0.0.0:8080'
      GATEWAY_OPS_LISTEN: '127.0.0.1:9464'
      GATEWAY_UPSTREAM_URL: 'http://127.0.0.1:5000'
      GATEWAY_PUBLIC_URLS: publicUrls
      GATEWAY_EXTERNAL_ACCESS: externalAccess
      GATEWAY_EXPOSURE_ACCEPTED_BY: exposureAcceptedBy
      GATEWAY_WARMUP_WAIT: '180s'
      GATEWAY_MEMORY_LIMIT: '512MiB'
      SESSION_TYPE: 'redis'
      REDIS_URL: redisHost
      REDIS_PASSWORD: '@Microsoft.KeyVault(SecretUri=${redisKeySecretUri})'
      // An empty value equals an unset one.
      DATABASE_URL: empty(databaseUrlSecretUri) ? '' : '@Microsoft.KeyVault(SecretUri=${databaseUrlSecretUri})'
    }
  }
}

resource simpleChat 'Microsoft.Web/sites/sitecontainers@2024-11-01' = {
  parent: site
  name: 'simplechat'
  properties: {
    image: simpleChatImage
    isMain: false
    targetPort: '5000'
    authType: pullAuthType
    userManagedIdentityClientId: empty(pullIdentityClientId) ? null : pullIdentityClientId
    inheritAppSettingsAndConnectionStrings: true
  }
  dependsOn: [
    appSettings
  ]
}

resource gateway 'Microsoft.Web/sites/sitecontainers@2024-11-01' = {
  parent: site
  name: 'gateway'
  properties: {
    image: gatewayImage
    isMain: true
    targetPort: '8080'
    authType: pullAuthType
    userManagedIdentityClientId: empty(pullIdentityClientId) ? null : pullIdentityClientId
    // The gateway does not get SimpleChat's secrets. A value here is the name of an app setting. Sidecars have no
    // secret volumes: REDIS_PASSWORD and DATABASE_URL are environment variables (docs/deploy/app-service.md).
    inheritAppSettingsAndConnectionStrings: false
    environmentVariables: [
      { name: 'TENANT_ID', value: 'TENANT_ID' }
      { name: 'CLIENT_ID', value: 'CLIENT_ID' }
      { name: 'AZURE_ENVIRONMENT', value: 'AZURE_ENVIRONMENT' }
      { name: 'GATEWAY_LISTEN', value: 'GATEWAY_LISTEN' }
      { name: 'GATEWAY_OPS_LISTEN', value: 'GATEWAY_OPS_LISTEN' }
      { name: 'GATEWAY_UPSTREAM_URL', value: 'GATEWAY_UPSTREAM_URL' }
      { name: 'GATEWAY_PUBLIC_URLS', value: 'GATEWAY_PUBLIC_URLS' }
      { name: 'GATEWAY_EXTERNAL_ACCESS', value: 'GATEWAY_EXTERNAL_ACCESS' }
      { name: 'GATEWAY_EXPOSURE_ACCEPTED_BY', value: 'GATEWAY_EXPOSURE_ACCEPTED_BY' }
      { name: 'GATEWAY_WARMUP_WAIT', value: 'GATEWAY_WARMUP_WAIT' }
      { name: 'GATEWAY_MEMORY_LIMIT', value: 'GATEWAY_MEMORY_LIMIT' }
      { name: 'SESSION_TYPE', value: 'SESSION_TYPE' }
      { name: 'REDIS_URL', value: 'REDIS_URL' }
      { name: 'REDIS_PASSWORD', value: 'REDIS_PASSWORD' }
      { name: 'DATABASE_URL', value: 'DATABASE_URL' }
    ]
  }
  dependsOn: [
    appSettings
    simpleChat
  ]
}

// Last: this switches the app to the containers above.
resource web 'Microsoft.Web/sites/config@2024-11-01' = {
  parent: site
  name: 'web'
  properties: {
    linuxFxVersion: 'sitecontainers'
    healthCheckPath: '/gateway/health/ready'
    alwaysOn: true
    http20Enabled: true
    httpLoggingEnabled: true
    ftpsState: 'Disabled'
    minTlsVersion: '1.2'
    scmMinTlsVersion: '1.2'
    remoteDebuggingEnabled: false
    acrUseManagedIdentityCreds: true
  }
  dependsOn: [
    gateway
  ]
}

// SimpleChat's sign-in, with the paths of external applications excluded: the gateway guards them. Differs from
// SimpleChat's deployment in openIdIssuer; jwtClaimChecks, isAutoProvisioned and allowedExternalRedirectUrls are
// not set. This resource is replaced as a whole; carry over your own changes.
resource signIn 'Microsoft.Web/sites/config@2024-11-01' = {
  parent: site
  name: 'authsettingsV2'
  properties: {
    globalValidation: {
      requireAuthentication: true
      unauthenticatedClientAction: 'RedirectToLoginPage'
      redirectToProvider: 'azureActiveDirectory'
      excludedPaths: [
        '/.well-known/oauth-protected-resource*'
        '/external/*'
      ]
    }
    identityProviders: {
      azureActiveDirectory: {
        enabled: true
        registration: {
          openIdIssuer: accessTokenVersion == 1 ? version1Issuer : version2Issuer
          clientId: clientId
          clientSecretSettingName: 'MICROSOFT_PROVIDER_AUTHENTICATION_SECRET'
        }
        validation: {
          allowedAudiences: [
            'api://${clientId}'
            clientId
          ]
        }
      }
    }
    login: {
      routes: {
        logoutEndpoint: '/.auth/logout'
      }
      tokenStore: {
        enabled: true
        tokenRefreshExtensionHours: 72
        fileSystem: {
          directory: '/home/data/.auth'
        }
      }
      cookieExpiration: {
        convention: 'FixedTime'
        timeToExpiration: '08:00:00'
      }
      nonce: {
        validateNonce: true
        nonceExpirationInterval: '00:05:00'
      }
    }
    httpSettings: {
      requireHttps: true
      routes: {
        apiPrefix: '/.auth'
      }
      forwardProxy: {
        convention: 'NoProxy'
      }
    }
  }
  dependsOn: [
    web
  ]
}

output healthUrl string = 'https://${site.properties.defaultHostName}/gateway/health/ready'
